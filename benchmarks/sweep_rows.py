"""The models of `benchmarks.models_sweep`: other people's libraries, random weights, small configurations, no downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.sweep_row import Lazy, Row, ids, mask, masked_text, named, pair, picture, table, text, torch, volume

# what `install` puts into the folder; torch and torchvision are the running environment's, so nothing may bring its own
PINNED = (
    "segmentation-models-pytorch==0.6.0 monai==1.6.1 ultralytics==8.4.190 ultralytics-thop==2.2.3 open_clip_torch==3.3.0 "
    "diffusers==0.42.1 vit-pytorch==1.26.11 x-transformers==2.31.10 facenet-pytorch==2.6.0 pytorch-tcn==1.2.3 pytorch-tabnet==4.1.0 "
    "rtdl_revisiting_models==0.0.2 rtdl_num_embeddings==0.0.12 transformers==5.24.0 timm==1.0.31 "
    # what those import
    "tokenizers==0.23.3 regex einops==0.8.2 einx==0.4.3 torch-einops-utils==0.2.0 frozendict loguru ftfy wcwidth requests urllib3 idna "
    "certifi charset-normalizer importlib_metadata zipp psutil polars polars-runtime-32 opencv-python-headless pyyaml typer"
).split()


def torchvision_rows() -> Iterator[Row]:
    tv, seg, det, video = (Lazy(f"torchvision.models{m}") for m in ("", ".segmentation", ".detection", ".video"))
    small = "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s mnasnet0_5 mobilenet_v2 mobilenet_v3_small "
    small += "regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 vgg11_bn swin_t swin_v2_t"
    for name in small.split():
        yield Row("torchvision", name, lambda n=name: tv.get_model(n, weights=None), picture(), (96, 128))
    yield Row("torchvision", "googlenet", lambda: tv.googlenet(weights=None, init_weights=False), picture(), (96, 128))
    yield Row("torchvision", "inception_v3", lambda: tv.inception_v3(weights=None, init_weights=False), picture(), (96, 128))
    yield Row("torchvision", "vit_b_16", lambda: tv.VisionTransformer(32, 8, 2, 4, 64, 128), picture(), (32,))
    yield Row("torchvision", "maxvit_t", lambda: tv.maxvit_t(weights=None), picture(), (224,))
    for name in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        yield Row("torchvision", name, lambda n=name: getattr(seg, n)(weights=None, weights_backbone=None), picture(), (64, 96))
    detectors = "fasterrcnn_mobilenet_v3_large_320_fpn retinanet_resnet50_fpn ssdlite320_mobilenet_v3_large fcos_resnet50_fpn keypointrcnn_resnet50_fpn"
    for name in detectors.split():
        yield Row(
            "torchvision", name, lambda n=name: getattr(det, n)(weights=None, weights_backbone=None),
            lambda b, s, _: ([torch.rand(3, s, s) for _ in range(b)],), (128,),
        )  # fmt: skip
    for name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t"):
        frames = 16 if name == "s3d" else 8
        side = 224 if name == "s3d" else 64
        yield Row("torchvision", name, lambda n=name: getattr(video, n)(weights=None), lambda b, s, _, f=frames: (torch.randn(b, 3, f, s, s),), (side,))  # fmt: skip
    yield Row(
        "torchvision",
        "mvit_v2_s",
        lambda: video.mvit_v2_s(weights=None),
        lambda b, s, _: (torch.randn(b, 3, 16, s, s),),
        (224,),
    )


TIMM = {
    96: "test_resnet test_efficientnet test_efficientnet_evos test_byobnet test_convnext test_convnext2 test_nfnet test_mambaout "
    "resnet10t mobilenetv3_small_050 mobilenetv4_conv_small_050 efficientnet_lite0 convnext_atto edgenext_xx_small mobilevit_xxs "
    "mobilevitv2_050 poolformer_s12 regnetx_002 repvgg_a0 rexnet_100 ghostnet_050 hardcorenas_a hrnet_w18_small dla46_c tinynet_e "
    "fastvit_t8 repvit_m0_9 starnet_s050 mobileone_s0 lcnet_035 skresnet18 selecsls42 efficientvit_b0 inception_next_atto pvt_v2_b0 "
    "focalnet_tiny_srf res2net50_14w_8s",
    160: "test_vit test_vit2 test_vit3",
    224: "vit_tiny_patch16_224 deit_tiny_patch16_224 gmixer_12_224 gmlp_ti16_224 resmlp_12_224 levit_128s xcit_nano_12_p16_224 "
    "cait_xxs24_224 convit_tiny tnt_s_legacy_patch16_224 visformer_tiny sequencer2d_s crossvit_tiny_240 twins_pcpvt_small",
}


def timm_rows() -> Iterator[Row]:
    timm = Lazy("timm")
    for size, names in TIMM.items():
        for name in names.split():
            side = 240 if name.endswith("240") else size
            sizes = (side, side + 32) if size == 96 else (side,)
            yield Row("timm", name, lambda n=name: timm.create_model(n), picture(), sizes)


SMALL = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embedding_size": 32, "num_hidden_layers": 2, "n_layer": 2,
    "n_layers": 2, "num_layers": 2, "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "d_inner": 64, "d_kv": 8, "hidden_dim": 64, "vocab_size": 99,
    "max_position_embeddings": 64, "n_positions": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "image_size": 32, "patch_size": 8, "head_dim": 8, "word_embed_proj_dim": 32, "rotary_dim": 4,
    "attention_types": [[["global", "local"], 1]], "use_cache": False, "true_hidden_size": 32, "intra_bottleneck_size": 32,
    "num_feedforward_networks": 1, "decoder_start_token_id": 0, "attention_hidden_size": 32, "state_size": 4, "attention_window": 4,
}  # fmt: skip
TEXT = (
    "Bert Albert Roberta DistilBert Electra MobileBert Deberta DebertaV2 Camembert XLMRoberta MPNet Funnel RoFormer SqueezeBert ConvBert "
    "Ernie Nystromformer ModernBert Longformer GPTNeoX OPT Llama Mistral Qwen2 Qwen3 Qwen3Moe Mixtral Gemma Gemma2 Phi Phi3 StableLm "
    "Olmo Cohere GPT2 GPTNeo GPTJ Bloom Falcon Mpt Mamba Rwkv"
).split()
LATER = "GPT2 GPTNeo GPTJ Bloom Falcon Mpt Mamba".split()  # the mask is not their second argument
MORE: dict[str, dict[str, Any]] = {
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}, "Mixtral": {"num_local_experts": 4},
    "ModernBert": {"global_attn_every_n_layers": 2, "local_attention": 8}, "Mamba": {"time_step_rank": 4},
    "Longformer": {"attention_window": [4, 4], "max_position_embeddings": 66},
}  # fmt: skip


def tiny(name: str, **given: Any) -> Any:
    """A transformers model made small by its configuration."""
    transformers = Lazy("transformers")
    cls = getattr(transformers, f"{name}Config")
    plain = cls()
    known = plain.to_dict() | {k: None for k in dir(plain)}
    unusable = {("Funnel", "num_hidden_layers"), ("Falcon", "head_dim")}
    config = cls(**({k: v for k, v in SMALL.items() if k in known and (name, k) not in unusable} | MORE.get(name, {}) | given))
    return getattr(transformers, f"{name}Model")(config)


def transformers_rows() -> Iterator[Row]:
    for name in TEXT:
        if name in LATER:
            build: Any = lambda n=name: named(tiny(n), "input_ids", "attention_mask")  # noqa: E731
        else:
            build = lambda n=name: tiny(n)  # noqa: E731
        yield Row("transformers", name, build, masked_text, (12, 16), True)
    for name in ("T5", "MT5", "Bart", "Pegasus", "Marian"):
        yield Row("transformers", name, lambda n=name: tiny(n), pair, (12, 16), True)
    for name in ("ViT", "DeiT", "Beit", "Dinov2", "ViTMAE"):
        yield Row("transformers", name, lambda n=name: tiny(n), picture(), (32,))
    few = {"hidden_sizes": [16, 32], "depths": [1, 1]}
    yield Row("transformers", "ConvNext", lambda: Lazy("transformers").ConvNextModel(Lazy("transformers").ConvNextConfig(num_stages=2, **few)), picture(), (64, 96))  # fmt: skip
    yield Row("transformers", "ResNet", lambda: Lazy("transformers").ResNetModel(Lazy("transformers").ResNetConfig(embedding_size=16, layer_type="basic", **few)), picture(), (64, 96))  # fmt: skip
    yield Row("transformers", "Swin", lambda: Lazy("transformers").SwinModel(Lazy("transformers").SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4)), picture(), (32,))  # fmt: skip
    yield Row("transformers", "Segformer", lambda: Lazy("transformers").SegformerModel(Lazy("transformers").SegformerConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4])), picture(), (64, 96))  # fmt: skip
    yield Row("transformers", "XLNet", lambda: Lazy("transformers").XLNetModel(Lazy("transformers").XLNetConfig(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=64)), masked_text, (12, 16), True)  # fmt: skip
    yield Row("transformers", "PatchTST", lambda: tiny("PatchTST", num_input_channels=3, context_length=32), lambda b, n, _: (torch.randn(b, n, 3),), (32,))  # fmt: skip
    yield Row("transformers", "Whisper", lambda: named(tiny("Whisper", num_mel_bins=8, max_source_positions=16, max_target_positions=16), "input_features", "decoder_input_ids"), lambda b, n, _: (torch.randn(b, 8, 32), ids(b, n)), (6, 9))  # fmt: skip
    yield Row("transformers", "Wav2Vec2", lambda: tiny("Wav2Vec2", conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2), lambda b, n, _: (torch.randn(b, n),), (400, 600))  # fmt: skip
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    words = tower | {"vocab_size": 99, "max_position_embeddings": 32, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    for name in ("CLIP", "Siglip"):
        yield Row(
            "transformers", name,
            lambda n=name: named(tiny(n, text_config=words, vision_config=tower | {"image_size": 32, "patch_size": 8}), "input_ids", "pixel_values", "attention_mask"),
            lambda b, n, padded: (ids(b, n), torch.randn(b, 3, 32, 32), mask(b, n, padded)), (12, 9), True,
        )  # fmt: skip


def smp_rows() -> Iterator[Row]:
    smp = Lazy("segmentation_models_pytorch")
    for name in "Unet UnetPlusPlus Linknet FPN PSPNet MAnet DeepLabV3 DeepLabV3Plus UPerNet Segformer".split():
        yield Row("segmentation-models-pytorch", name, lambda n=name: getattr(smp, n)("resnet18", encoder_weights=None, classes=3), picture(), (64, 96))  # fmt: skip
    yield Row(
        "segmentation-models-pytorch",
        "PAN",
        lambda: smp.PAN("resnet18", encoder_weights=None, classes=3),
        picture(),
        (128, 160),
    )
    yield Row("segmentation-models-pytorch", "Unet-mobilenet", lambda: smp.Unet("mobilenet_v2", encoder_weights=None, classes=3), picture(), (64, 96))  # fmt: skip
    yield Row("segmentation-models-pytorch", "Unet-scse", lambda: smp.Unet("resnet18", encoder_weights=None, decoder_attention_type="scse"), picture(), (64, 96))  # fmt: skip


def monai_rows() -> Iterator[Row]:
    nets = Lazy("monai.networks.nets")
    flat = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    solid = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    steps = {"channels": (8, 16, 32), "strides": (2, 2)}
    p, v = picture(1), volume(1)
    made: tuple[tuple[str, Callable[[], Any], Any, tuple[int, ...]], ...] = (
        ("UNet2d", lambda: nets.UNet(**flat, **steps, num_res_units=2), p, (32, 64)),
        ("UNet3d", lambda: nets.UNet(**solid, **steps), v, (16, 32)),
        ("BasicUNet", lambda: nets.BasicUNet(**flat, features=(8, 8, 16, 16, 32, 8)), p, (32, 64)),
        ("BasicUNetPlusPlus", lambda: nets.BasicUNetPlusPlus(**flat, features=(8, 8, 16, 16, 32, 8)), p, (32, 64)),
        ("AttentionUnet", lambda: nets.AttentionUnet(**flat, **steps), p, (32, 64)),
        ("DynUNet", lambda: nets.DynUNet(**flat, kernel_size=(3, 3, 3), strides=(1, 2, 2), upsample_kernel_size=(2, 2), filters=(8, 16, 32)), p, (32, 64)),
        ("SegResNet", lambda: nets.SegResNet(spatial_dims=2, init_filters=8, in_channels=1, out_channels=2), p, (32, 64)),
        ("SegResNetVAE", lambda: nets.SegResNetVAE(input_image_size=(32, 32), spatial_dims=2, init_filters=8, in_channels=1, out_channels=2), p, (32,)),
        ("VNet", lambda: nets.VNet(**solid), v, (32,)),
        ("UNETR", lambda: nets.UNETR(in_channels=1, out_channels=2, img_size=32, feature_size=8, hidden_size=32, mlp_dim=64, num_heads=4, spatial_dims=2), p, (32,)),
        ("SwinUNETR", lambda: nets.SwinUNETR(in_channels=1, out_channels=2, feature_size=12, spatial_dims=2), p, (64,)),
        ("ViT", lambda: nets.ViT(in_channels=1, img_size=(32, 32), patch_size=(8, 8), hidden_size=32, mlp_dim=64, num_layers=2, num_heads=4, spatial_dims=2, classification=True), p, (32,)),
        ("ViTAutoEnc", lambda: nets.ViTAutoEnc(in_channels=1, img_size=(32, 32), patch_size=(16, 16), hidden_size=32, mlp_dim=64, num_layers=2, num_heads=4, spatial_dims=2), p, (32,)),
        ("MaskedAutoEncoderViT", lambda: nets.MaskedAutoEncoderViT(in_channels=1, img_size=(32, 32), patch_size=(8, 8), hidden_size=32, mlp_dim=64, num_layers=2, num_heads=4, decoder_hidden_size=32, decoder_mlp_dim=64, decoder_num_layers=2, decoder_num_heads=4, spatial_dims=2), p, (32,)),
        ("DenseNet", lambda: nets.DenseNet(**flat, init_features=8, growth_rate=4, block_config=(2, 2)), p, (32, 64)),
        ("EfficientNetBN", lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=1), p, (64, 96)),
        ("ResNet10", lambda: nets.resnet10(pretrained=False, spatial_dims=3, n_input_channels=1, num_classes=2), v, (32,)),
        ("SEResNet50", lambda: nets.SEResNet50(spatial_dims=2, in_channels=1, num_classes=2), p, (64,)),
        ("HighResNet", lambda: nets.HighResNet(**flat), p, (32, 64)),
        ("AutoEncoder", lambda: nets.AutoEncoder(**flat, channels=(8, 16), strides=(2, 2)), p, (32, 64)),
        ("VarAutoEncoder", lambda: nets.VarAutoEncoder(spatial_dims=2, in_shape=(1, 32, 32), out_channels=1, latent_size=4, channels=(8, 16), strides=(2, 2)), p, (32,)),
        ("AutoencoderKL", lambda: nets.AutoencoderKL(spatial_dims=2, in_channels=1, out_channels=1, num_res_blocks=(1, 1), channels=(8, 16), attention_levels=(False, True), latent_channels=4, norm_num_groups=4), p, (32,)),
        ("Classifier", lambda: nets.Classifier(in_shape=(1, 32, 32), classes=3, channels=(8, 16), strides=(2, 2)), p, (32,)),
        ("Regressor", lambda: nets.Regressor(in_shape=(1, 32, 32), out_shape=1, channels=(8, 16), strides=(2, 2)), p, (32,)),
        ("Discriminator", lambda: nets.PatchDiscriminator(spatial_dims=2, channels=8, in_channels=1, num_layers_d=2), p, (32, 64)),
        ("Restormer", lambda: Lazy("monai.networks.nets.restormer").Restormer(spatial_dims=2, in_channels=1, out_channels=1, dim=16, num_blocks=(1, 1), heads=(1, 1), num_refinement_blocks=1), p, (32,)),
        ("FlexibleUNet", lambda: nets.FlexibleUNet(in_channels=3, out_channels=2, backbone="resnet18", spatial_dims=2), picture(3), (64, 96)),
        ("MILModel", lambda: nets.MILModel(num_classes=2, mil_mode="att", pretrained=False, backbone="resnet18"), lambda b, s, _: (torch.randn(b, 3, 3, s, s),), (32,)),
        ("DiffusionModelUNet", lambda: nets.DiffusionModelUNet(**solid | {"spatial_dims": 2}, num_res_blocks=(1, 1), channels=(8, 16), attention_levels=(False, True), num_head_channels=8, norm_num_groups=4), lambda b, s, _: (torch.randn(b, 1, s, s), torch.randint(0, 100, (b,))), (32,)),
    )  # fmt: skip
    for name, build, draw, sizes in made:
        yield Row("monai", name, build, draw, sizes)


def ultralytics_rows() -> Iterator[Row]:
    tasks = Lazy("ultralytics.nn.tasks")
    kinds = {
        "": "DetectionModel",
        "-seg": "SegmentationModel",
        "-pose": "PoseModel",
        "-cls": "ClassificationModel",
        "-obb": "OBBModel",
    }
    for name in "yolov8n yolov8n-seg yolov8n-pose yolov8n-cls yolov8n-obb yolo11n yolo11n-cls yolo11n-seg yolo12n yolov5n yolov6n yolov9t yolov10n yolov3-tiny yolo26n".split():  # fmt: skip
        kind = kinds.get("-" + name.split("-")[-1] if "-" in name else "", "DetectionModel")
        yield Row(
            "ultralytics", name, lambda n=name, k=kind: getattr(tasks, k)(f"{n}.yaml", verbose=False), picture(), (64, 96)
        )


def open_clip_rows() -> Iterator[Row]:
    model, coca = Lazy("open_clip.model"), Lazy("open_clip.coca_model")
    words = {"context_length": 12, "vocab_size": 99, "width": 32, "heads": 4, "layers": 2}
    vit = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8}
    both = lambda b, s, _: (torch.randn(b, 3, s, s), ids(b, 12))  # noqa: E731
    yield Row("open_clip", "CLIP-ViT", lambda: model.CLIP(16, vit, words), both, (32,))
    yield Row("open_clip", "CLIP-RN", lambda: model.CLIP(16, {"image_size": 64, "layers": (1, 1, 1, 1), "width": 8, "patch_size": None}, words), both, (64,))  # fmt: skip
    yield Row("open_clip", "CLIP-ViT-quickgelu", lambda: model.CLIP(16, vit, words, quick_gelu=True), both, (32,))
    yield Row("open_clip", "CustomTextCLIP", lambda: model.CustomTextCLIP(16, vit, words), both, (32,))
    yield Row("open_clip", "CoCa", lambda: coca.CoCa(32, {"context_length": 12, "vocab_size": 99, "width": 32, "heads": 4, "layers": 2, "mlp_ratio": 2}, words | {"embed_cls": True, "output_tokens": True}, vit | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True, "attn_pooler_queries": 8}), both, (32,))  # fmt: skip


def diffusers_rows() -> Iterator[Row]:
    d = Lazy("diffusers")
    steps = lambda b: torch.randint(0, 100, (b,))  # noqa: E731
    noisy = lambda c: lambda b, s, _: (torch.randn(b, c, s, s), steps(b))  # noqa: E731
    told = lambda c: lambda b, s, _: (torch.randn(b, c, s, s), steps(b), torch.randn(b, 7, 16))  # noqa: E731
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    cross = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 16, "attention_head_dim": 4}  # fmt: skip
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
    three = ("sample", "timestep", "encoder_hidden_states")
    other = ("hidden_states", "timestep", "encoder_hidden_states")
    made: tuple[tuple[str, Callable[[], Any], Any, tuple[int, ...]], ...] = (
        ("UNet2DModel", lambda: d.UNet2DModel(sample_size=32, **blocks, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8), noisy(3), (32, 64)),
        ("UNet2DConditionModel", lambda: d.UNet2DConditionModel(sample_size=16, **blocks, **cross), told(4), (16, 32)),
        ("ControlNetModel", lambda: named(d.ControlNetModel(**blocks, down_block_types=cross["down_block_types"], cross_attention_dim=16, attention_head_dim=4, conditioning_embedding_out_channels=(8, 16)), *three, "controlnet_cond"), lambda b, s, _: (*told(4)(b, s, _), torch.randn(b, 3, 2 * s, 2 * s)), (16,)),
        ("UNet1DModel", lambda: d.UNet1DModel(sample_size=64, in_channels=2, out_channels=2, extra_in_channels=64, block_out_channels=(32, 32, 64), layers_per_block=1), lambda b, n, _: (torch.randn(b, 2, n), steps(b)), (64, 128)),
        ("AutoencoderKL", lambda: d.AutoencoderKL(**blocks, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2), picture(3), (32, 64)),
        ("AutoencoderTiny", lambda: d.AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)), picture(3), (32, 64)),
        ("VQModel", lambda: d.VQModel(**blocks, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, num_vq_embeddings=32), picture(3), (32,)),
        ("AutoencoderOobleck", lambda: d.AutoencoderOobleck(encoder_hidden_size=8, downsampling_ratios=[2, 4], channel_multiples=[1, 2], decoder_channels=8, decoder_input_channels=4, audio_channels=2), lambda b, n, _: (torch.randn(b, 2, n),), (64, 128)),
        ("Transformer2DModel", lambda: named(d.Transformer2DModel(**heads, in_channels=8, norm_num_groups=4, cross_attention_dim=16), "hidden_states", "encoder_hidden_states"), lambda b, s, _: (torch.randn(b, 8, s, s), torch.randn(b, 7, 16)), (8, 12)),
        ("DiTTransformer2DModel", lambda: named(d.DiTTransformer2DModel(**heads, in_channels=4, sample_size=8, patch_size=2, num_embeds_ada_norm=10), "hidden_states", "timestep", "class_labels"), lambda b, s, _: (torch.randn(b, 4, s, s), steps(b), torch.randint(0, 10, (b,))), (8,)),
        ("PixArtTransformer2DModel", lambda: named(d.PixArtTransformer2DModel(**heads, in_channels=4, out_channels=8, sample_size=8, patch_size=2, cross_attention_dim=16, caption_channels=16, use_additional_conditions=False), "hidden_states", "encoder_hidden_states", "timestep"), lambda b, s, _: (torch.randn(b, 4, s, s), torch.randn(b, 7, 16), steps(b)), (8,)),
        ("SD3Transformer2DModel", lambda: named(d.SD3Transformer2DModel(sample_size=8, patch_size=2, in_channels=4, out_channels=4, **heads, joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16), *other, "pooled_projections"), lambda b, s, _: (torch.randn(b, 4, s, s), steps(b), torch.randn(b, 7, 16), torch.randn(b, 16)), (8,)),
        ("PriorTransformer", lambda: named(d.PriorTransformer(**heads, embedding_dim=16, num_embeddings=7, additional_embeddings=4), "hidden_states", "timestep", "proj_embedding", "encoder_hidden_states"), lambda b, _, __: (torch.randn(b, 16), steps(b), torch.randn(b, 16), torch.randn(b, 7, 16)), (0,)),
        ("SanaTransformer2DModel", lambda: named(d.SanaTransformer2DModel(in_channels=4, out_channels=4, **heads, num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16, sample_size=8), "hidden_states", "encoder_hidden_states", "timestep"), lambda b, s, _: (torch.randn(b, 4, s, s), torch.randn(b, 7, 16), steps(b)), (8,)),
    )  # fmt: skip
    for name, build, draw, sizes in made:
        yield Row("diffusers", name, build, draw, sizes)


def vit_pytorch_rows() -> Iterator[Row]:
    small = "image_size=32, patch_size=8, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=32"
    made = {
        "vit.ViT": small, "simple_vit.SimpleViT": small, "deepvit.DeepViT": small, "vit_for_small_dataset.ViT": small,
        "parallel_vit.ViT": small, "vit_with_patch_merger.ViT": small, "simple_vit_with_qk_norm.SimpleViT": small,
        "simple_vit_with_register_tokens.SimpleViT": small, "simple_vit_with_value_residual.SimpleViT": small,
        "simple_vit_with_fft.SimpleViT": small + ", freq_patch_size=8", "vit_with_patch_dropout.ViT": small,
        "cait.CaiT": "image_size=32, patch_size=8, num_classes=5, dim=32, depth=2, cls_depth=1, heads=2, mlp_dim=32",
        "cct.CCT": "img_size=32, embedding_dim=32, n_conv_layers=1, num_layers=2, num_heads=2, mlp_ratio=1., num_classes=5",
        "rvt.RvT": small, "learnable_memory_vit.ViT": small,
        "levit.LeViT": "image_size=64, num_classes=5, stages=3, dim=(16, 32, 48), depth=1, heads=(2, 2, 2), mlp_mult=2",
        "cvt.CvT": "num_classes=5, s1_emb_dim=16, s2_emb_dim=32, s3_emb_dim=32, s3_depth=1, s3_heads=2, s2_heads=2",
        "twins_svt.TwinsSVT": "num_classes=5, s1_emb_dim=8, s2_emb_dim=16, s3_emb_dim=16, s4_emb_dim=16, s1_local_patch_size=2, s2_local_patch_size=2, s3_local_patch_size=2, s4_local_patch_size=2, s3_depth=1",
        "crossformer.CrossFormer": "num_classes=5, dim=(32, 32, 64, 64), depth=(1, 1, 1, 1), global_window_size=(2, 2, 2, 1), local_window_size=2",
        "nest.NesT": "image_size=32, patch_size=4, dim=16, heads=2, num_hierarchies=2, block_repeats=(1, 1), num_classes=5",
        "max_vit.MaxViT": "num_classes=5, dim=16, dim_head=8, depth=(1, 1), window_size=2",
        "mobile_vit.MobileViT": "image_size=(64, 64), dims=[16, 24, 24], channels=[8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 16], num_classes=5",
        "xcit.XCiT": "image_size=32, patch_size=8, num_classes=5, dim=32, depth=2, cls_depth=1, heads=2, mlp_dim=32",
        "t2t.T2TViT": "image_size=32, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=32, t2t_layers=((3, 2), (3, 2))",
        "regionvit.RegionViT": "dim=(8, 16, 16, 32), depth=(1, 1, 1, 1), window_size=2, num_classes=5",
        "pit.PiT": "image_size=32, patch_size=8, dim=32, num_classes=5, depth=(1, 1), heads=2, mlp_dim=32",
        "cross_vit.CrossViT": "image_size=32, num_classes=5, depth=1, sm_dim=16, sm_patch_size=8, sm_enc_depth=1, sm_enc_heads=2, sm_enc_mlp_dim=16, lg_dim=16, lg_patch_size=16, lg_enc_depth=1, lg_enc_heads=2, lg_enc_mlp_dim=16",
    }  # fmt: skip
    large = ("levit", "cvt", "crossformer", "mobile_vit", "regionvit")
    for path, arguments in made.items():
        module, cls = path.split(".")
        side = {"twins_svt": 224}.get(module, 64 if module in large else 32)
        yield Row(
            "vit-pytorch", module if cls in ("ViT", "SimpleViT") else cls,
            lambda m=module, c=cls, a=arguments: getattr(Lazy(f"vit_pytorch.{m}"), c)(**eval(f"dict({a})")), picture(), (side,),
        )  # fmt: skip
    yield Row("vit-pytorch", "vit_3d", lambda: Lazy("vit_pytorch.vit_3d").ViT(image_size=16, frames=4, image_patch_size=8, frame_patch_size=2, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=32), lambda b, s, _: (torch.randn(b, 3, 4, s, s),), (16,))  # fmt: skip
    yield Row("vit-pytorch", "vit_1d", lambda: Lazy("vit_pytorch.vit_1d").ViT(seq_len=32, patch_size=8, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=32), lambda b, n, _: (torch.randn(b, 3, n),), (32,))  # fmt: skip
    yield Row("vit-pytorch", "vivit", lambda: Lazy("vit_pytorch.vivit").ViViT(image_size=16, frames=4, image_patch_size=8, frame_patch_size=2, num_classes=5, dim=32, spatial_depth=1, temporal_depth=1, heads=2, mlp_dim=32), lambda b, s, _: (torch.randn(b, 3, 4, s, s),), (16,))  # fmt: skip


def x_transformers_rows() -> Iterator[Row]:
    x = Lazy("x_transformers")
    size = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "Decoder": ("Decoder", {}), "Encoder": ("Encoder", {}), "Decoder-rotary": ("Decoder", {"rotary_pos_emb": True}),
        "Decoder-alibi": ("Decoder", {"alibi_pos_bias": True, "alibi_num_heads": 1}),
        "Encoder-relative": ("Encoder", {"rel_pos_bias": True}), "Decoder-swiglu": ("Decoder", {"ff_swish": True, "ff_glu": True}),
        "Decoder-rmsnorm": ("Decoder", {"use_rmsnorm": True, "attn_flash": True}),
        "Decoder-onekv": ("Decoder", {"attn_one_kv_head": True}), "Encoder-xpos": ("Encoder", {"use_scalenorm": True}),
    }  # fmt: skip
    for name, (layers, more) in kinds.items():
        yield Row("x-transformers", name, lambda k=layers, m=more: x.TransformerWrapper(num_tokens=99, max_seq_len=32, attn_layers=getattr(x, k)(**size, **m)), text, (12, 16))  # fmt: skip
    yield Row("x-transformers", "Encoder-mask", lambda: named(x.TransformerWrapper(num_tokens=99, max_seq_len=32, attn_layers=x.Encoder(**size)), "x", "mask"), lambda b, n, padded: (ids(b, n), mask(b, n, padded).bool()), (12, 16), True)  # fmt: skip
    yield Row("x-transformers", "ContinuousTransformerWrapper", lambda: x.ContinuousTransformerWrapper(dim_in=6, dim_out=3, max_seq_len=32, attn_layers=x.Encoder(**size)), lambda b, n, _: (torch.randn(b, n, 6),), (12, 16))  # fmt: skip
    yield Row("x-transformers", "ViTransformerWrapper", lambda: x.ViTransformerWrapper(image_size=32, patch_size=8, num_classes=5, attn_layers=x.Encoder(**size)), picture(), (32,))  # fmt: skip


def table_rows() -> Iterator[Row]:
    """Faces, series and tables."""
    face, mtcnn = Lazy("facenet_pytorch.models.inception_resnet_v1"), Lazy("facenet_pytorch.models.mtcnn")
    yield Row(
        "facenet-pytorch",
        "InceptionResnetV1",
        lambda: face.InceptionResnetV1(pretrained=None, device="cpu"),
        picture(),
        (96, 128),
    )
    yield Row("facenet-pytorch", "InceptionResnetV1-classify", lambda: face.InceptionResnetV1(pretrained=None, classify=True, num_classes=7, device="cpu"), picture(), (96, 128))  # fmt: skip
    for name, size in (("PNet", 12), ("RNet", 24), ("ONet", 48)):
        yield Row("facenet-pytorch", name, lambda n=name: getattr(mtcnn, n)(pretrained=False), picture(), (size,))
    tcn = Lazy("pytorch_tcn")
    series = lambda b, n, _: (torch.randn(b, 4, n),)  # noqa: E731
    variants: dict[str, dict[str, Any]] = {
        "TCN-weight-norm": {}, "TCN-batch-norm": {"use_norm": "batch_norm"}, "TCN-layer-norm": {"use_norm": "layer_norm"},
        "TCN-skip": {"use_norm": None, "use_skip_connections": True}, "TCN-gate": {"use_norm": "batch_norm", "use_gate": True, "causal": False},
    }  # fmt: skip
    for name, more in variants.items():
        yield Row("pytorch-tcn", name, lambda m=more: tcn.TCN(4, [8, 8], output_projection=3, **m), series, (20, 31))
    tab = Lazy("pytorch_tabnet.tab_network")
    none = lambda n: torch.eye(n)  # noqa: E731
    yield Row("pytorch-tabnet", "TabNet", lambda: tab.TabNet(8, 3, group_attention_matrix=none(8)), table(8))
    yield Row(
        "pytorch-tabnet",
        "TabNet-entmax",
        lambda: tab.TabNet(8, 3, mask_type="entmax", group_attention_matrix=none(8)),
        table(8),
    )
    yield Row("pytorch-tabnet", "TabNet-categories", lambda: tab.TabNet(8, 3, cat_idxs=[0, 1], cat_dims=[5, 7], cat_emb_dim=[2, 2], group_attention_matrix=none(8)), lambda b, _, __: (torch.cat([torch.randint(0, 5, (b, 2)).float(), torch.randn(b, 6)], 1),))  # fmt: skip
    rtdl, numbers = Lazy("rtdl_revisiting_models"), Lazy("rtdl_num_embeddings")
    yield Row("rtdl", "MLP", lambda: rtdl.MLP(d_in=8, d_out=3, n_blocks=2, d_block=16, dropout=0.1), table(8))
    yield Row("rtdl", "ResNet", lambda: rtdl.ResNet(d_in=8, d_out=3, n_blocks=2, d_block=16, d_hidden=None, d_hidden_multiplier=2.0, dropout1=0.1, dropout2=0.1), table(8))  # fmt: skip
    mixed = lambda b, _, __: (torch.randn(b, 6), torch.randint(0, 4, (b, 2)))  # noqa: E731
    sizes = {"n_blocks": 2, "d_block": 16, "attention_n_heads": 2, "attention_dropout": 0.1, "ffn_d_hidden": None, "ffn_d_hidden_multiplier": 2.0, "ffn_dropout": 0.1, "residual_dropout": 0.0}  # fmt: skip
    yield Row(
        "rtdl",
        "FTTransformer",
        lambda: rtdl.FTTransformer(n_cont_features=6, cat_cardinalities=[4, 4], d_out=3, **sizes),
        mixed,
    )
    for name in ("LinearEmbeddings", "LinearReLUEmbeddings"):
        yield Row("rtdl", name, lambda n=name: _headed(getattr(numbers, n)(8, 6), 48), table(8))
    yield Row("rtdl", "PeriodicEmbeddings", lambda: _headed(numbers.PeriodicEmbeddings(8, 6, lite=False), 48), table(8))


def _headed(embedding: Any, width: int) -> Any:
    from torch import nn

    return nn.Sequential(embedding, nn.Flatten(), nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 3))


def rows() -> tuple[Row, ...]:
    """Every row, libraries together."""
    makers = (
        torchvision_rows, timm_rows, transformers_rows, smp_rows, monai_rows, ultralytics_rows, open_clip_rows, diffusers_rows,
        vit_pytorch_rows, x_transformers_rows, table_rows,
    )  # fmt: skip
    return tuple(row for maker in makers for row in maker())
