"""Data from files: what is shown, which part it is of, what is refused."""

from __future__ import annotations

from tests.mutations.defect import Defect

FILES = "tests/sources/test_files.py"
ODD = ("tests/sources/test_odd_files.py",)
DECLARED = "tests/pipeline/test_declared_data.py"
SHOWN = (f"{FILES}::test_an_image_is_what_the_transforms_of_torchvision_make_of_it",)
MASKS = (f"{FILES}::test_a_mask_is_cut_and_scaled_with_its_image",)
BYTES = (f"{DECLARED}::test_one_seed_the_same_bytes_with_any_number_of_workers_and_after_a_kill",)

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "the shorter side covers the longer", "sources/data/images.py",
        "scale = max(height / image.height, width / image.width)", "scale = min(height / image.height, width / image.width)",
        "an image is what torchvision makes of it", SHOWN,
    ),
    Defect(
        "the spread is taken off, not divided by", "sources/data/images.py",
        "x.sub_(_column(view.mean)).div_(_column(view.std))", "x.sub_(_column(view.mean)).sub_(_column(view.std))",
        "an image is what torchvision makes of it", SHOWN,
    ),
    Defect(
        "masks are blurred", "sources/data/images.py",
        'np.asarray(_fitted(image, view, "nearest"))', 'np.asarray(_fitted(image, view, "bilinear"))',
        "a mask is cut and scaled with its image", MASKS,
    ),
    Defect(
        "photos lie as they were taken", "sources/data/images.py",
        "    image = ImageOps.exif_transpose(image)\n", "",
        "a turned photo stands upright", (f"{FILES}::test_a_turned_photo_stands_upright",),
    ),
    Defect(
        "sixteen bits are read as eight", "sources/data/images.py",
        "Image.fromarray(found.astype(np.float32) / 65_535)", "Image.fromarray(found.astype(np.float32) / 255)",
        "sixteen bits keep their range", (f"{FILES}::test_sixteen_bits_keep_their_range",),
    ),
    Defect(
        "an animation is its first picture", "sources/data/images.py",
        'if image.format in _SEVERAL and getattr(image, "is_animated", False):', "if False:",
        "what holds several pictures is refused", ODD,
    ),
    Defect(
        "a strange value of a mask is a class", "sources/data/images.py",
        "if (out == -1).any():", "if False:",
        "what is no class is refused", ODD,
    ),
    Defect(
        "the test part of a folder is cut anew", "sources/data/found.py",
        '    out |= {n: p for n, p in found.given.items() if n != "train"}\n', "",
        "the parts that a folder has are kept", (f"{FILES}::test_the_parts_that_a_folder_has_are_kept",),
    ),
    Defect(
        "columns are measured by all rows", "sources/data/found.py",
        "    held = x[train].double()\n", "    held = x.double()\n",
        "numbers are in units of the training part", (f"{FILES}::test_numbers_in_units_of_the_training_part",),
    ),
    Defect(
        "class numbers in the order of their letters", "sources/data/columns.py",
        "key=_by_number if all(_whole(v) for v in distinct) else str", "key=str",
        "class numbers keep their order", (f"{FILES}::test_class_numbers_keep_their_order",),
    ),
    Defect(
        "a gap is a number", "sources/data/columns.py",
        "    return found if math.isfinite(found) else None\n", "    return found\n",
        "NaN is refused with its line", ODD,
    ),
    Defect(
        "a table names files above it", "sources/data/tables.py",
        "if not trust.outside and (os.path.isabs(text) or os.path.commonpath([root, os.path.normpath(path)]) != root):",
        "if False:",
        "a table reads below its folder", ODD,
    ),
    Defect(
        "pickles of an archive are numbers", "sources/data/npz.py",
        "        if name in self._pickled:\n", "        if False:\n",
        "pickles are refused as such", ODD,
    ),
    Defect(
        "a shard that is cut off ends there", "sources/data/shards.py",
        "if opened.read(512) != bytes(512):", "if False:",
        "a shard that is cut off is refused", ODD,
    ),
    Defect(
        "a saved set names files elsewhere", "sources/data/hf_dataset.py",
        'if not isinstance(name, str) or not _PLAIN.fullmatch(name) or name.startswith(".."):', "if False:",
        "a saved set reads its own files", ODD,
    ),
    Defect(
        "a refusal in a worker loses its place", "sources/data/given/samples.py",
        "        except NetxformError as error:\n            return _Refused(error.diagnostics)\n\n\n@dataclass",
        "        except ZeroDivisionError as error:\n            return _Refused(error.diagnostics)\n\n\n@dataclass",
        "a damaged file is named, whoever decodes it",
        (f"{DECLARED}::test_damaged_files_are_named_or_left_out_and_counted",),
    ),
    Defect(
        "a network of a library costs what it does on its own size", "pipeline/subject.py",
        "return loaded if size_[0] != first[1] else replace(loaded, shapes=(((first[0], *size_), kind),))", "return loaded",
        "costs are those on the data", (f"{DECLARED}::test_a_model_of_a_library_costs_what_it_costs_on_the_data",),
    ),
)  # fmt: skip
