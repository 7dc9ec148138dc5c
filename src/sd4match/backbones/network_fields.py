"""Tables of types and bounds of the fields in networks' JSON files. Importing this module loads no torch.

Missing fields are not checked: the libraries use their defaults, which are Stable Diffusion's. Fields for which that is
not so are required (`require`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sd4match.backbones.model_files import Fields
from sd4match.fields import LARGEST_SIDE

Check = Callable[[Fields, str], object]
"""Check of one field by its name."""


def check_table(fields: Fields, table: Mapping[str, Check]) -> None:
    """Check the fields of a file against a table.

    Args:
        fields: fields of the file.
        table: check of each field by name.

    Raises:
        CheckpointError: a field has a value that cannot work; the message names file, field and allowed values.

    >>> check_table(Fields({"conv_in_kernel": None}, "unet/config.json"), UNET)
    Traceback (most recent call last):
        ...
    sd4match.errors.CheckpointError: unet/config.json: conv_in_kernel must be 3, as in every Stable Diffusion, not None
    """
    for name, check in table.items():
        if name in fields.content:
            check(fields, name)


def require(fields: Fields, *names: str) -> None:
    """Check that a file has fields for which a library would otherwise use a default.

    Args:
        fields: fields of the file.
        names: names of the required fields.

    Raises:
        CheckpointError: a field is missing; the message names it.
    """
    missing = [name for name in names if name not in fields.content]
    if missing:
        raise fields.refuse(f"field {missing[0]!r} missing")


def _whole(low: int = 1, high: int = 1 << 16) -> Check:
    return lambda fields, name: fields.whole(name, low=low, high=high)


def _number(low: float, high: float) -> Check:
    return lambda fields, name: fields.number(name, low=low, high=high)


def _flag(fields: Fields, name: str) -> None:
    fields.flag(name, default=False)


def _choice(*choices: str) -> Check:
    return lambda fields, name: fields.choice(name, choices)


def _optional(check: Check) -> Check:
    return lambda fields, name: None if fields.content[name] is None else check(fields, name)


def _always(value: object) -> Check:
    return lambda fields, name: fields.only(name, value, why="as in every Stable Diffusion")


def _prompt_only(fields: Fields, name: str) -> None:
    fields.absent(name, "asks for more than a prompt, and a model like that is not supported", allowed=(None,))


def _unsupported(*allowed: object) -> Check:
    return lambda fields, name: fields.absent(name, "is not supported", allowed=allowed)


_ACTIVATION = _choice("silu", "swish", "mish", "gelu", "relu")
_TEXT_ACTIVATION = _choice("quick_gelu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish")
_CHANCE = _number(0.0, 0.99)
_EPSILON = _number(1e-12, 1e-2)

UNET: Mapping[str, Check] = {
    "_class_name": _choice("UNet2DConditionModel"),
    "act_fn": _ACTIVATION,
    "addition_embed_type": _prompt_only,
    "addition_embed_type_num_heads": _whole(),
    "attention_type": lambda fields, name: fields.absent(
        name, "asks for more than a prompt, and a model like that is not supported", allowed=(None, "default")
    ),
    "center_input_sample": _unsupported(None, False),
    "class_embed_type": _prompt_only,
    "class_embeddings_concat": _always(False),
    "conv_in_kernel": _always(3),
    "conv_out_kernel": _always(3),
    "cross_attention_norm": _optional(_choice("layer_norm", "group_norm")),
    "downsample_padding": _always(1),
    "dropout": _CHANCE,
    "dual_cross_attention": lambda fields, name: fields.absent(
        name, "asks for more than a prompt, and a model like that is not supported"
    ),
    "encoder_hid_dim": _prompt_only,
    "encoder_hid_dim_type": _prompt_only,
    "flip_sin_to_cos": _always(True),
    "freq_shift": _always(0),
    "mid_block_only_cross_attention": _optional(_flag),
    "mid_block_scale_factor": _always(1),
    "mid_block_type": _choice("UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn"),
    "norm_eps": _EPSILON,
    "norm_num_groups": _whole(),
    "num_class_embeds": _prompt_only,
    "only_cross_attention": _flag,
    "out_channels": _whole(high=1024),
    "resnet_out_scale_factor": _always(1.0),
    "resnet_skip_time_act": _always(False),
    "resnet_time_scale_shift": _choice("default", "scale_shift"),
    "reverse_transformer_layers_per_block": _unsupported(None),
    "time_cond_proj_dim": _prompt_only,
    "time_embedding_act_fn": _unsupported(None),
    "time_embedding_dim": _optional(_whole()),
    "time_embedding_type": _always("positional"),
    "timestep_post_act": _optional(_ACTIVATION),
    "transformer_layers_per_block": _whole(high=64),
    "upcast_attention": _optional(_flag),
    "use_linear_projection": _flag,
}
"""Fields of a UNet2DConditionModel."""

VAE: Mapping[str, Check] = {
    "_class_name": _choice("AutoencoderKL"),
    "act_fn": _ACTIVATION,
    "force_upcast": _flag,
    "in_channels": lambda fields, name: fields.only(name, 3, why="for RGB photos"),
    "latent_channels": _whole(high=1024),
    "latents_mean": _unsupported(None),
    "latents_std": _unsupported(None),
    "layers_per_block": _whole(high=64),
    "mid_block_add_attention": _flag,
    "norm_num_groups": _whole(),
    "out_channels": lambda fields, name: fields.only(name, 3, why="for RGB photos"),
    "sample_size": _whole(high=LARGEST_SIDE),
    "scaling_factor": _number(1e-6, 1e6),
    "shift_factor": _unsupported(None, 0, 0.0),
    "use_post_quant_conv": _flag,
    "use_quant_conv": _flag,
}
"""Fields of an AutoencoderKL."""

TEXT_ENCODER: Mapping[str, Check] = {
    "model_type": _choice("clip_text_model"),
    "attention_dropout": _CHANCE,
    "hidden_act": _TEXT_ACTIVATION,
    "hidden_size": _whole(),
    "initializer_factor": _number(0.0, 1e3),
    "initializer_range": _number(0.0, 1e3),
    "intermediate_size": _whole(),
    "layer_norm_eps": _EPSILON,
    "num_attention_heads": _whole(high=1024),
    "projection_dim": _whole(),
}
"""Fields of a CLIPTextModel."""

TRANSFORMER: Mapping[str, Check] = {
    "attention_dropout": _CHANCE,
    "attention_probs_dropout_prob": _CHANCE,
    "drop_path_rate": _CHANCE,
    "hidden_act": _TEXT_ACTIVATION,
    "hidden_dropout_prob": _CHANCE,
    "hidden_size": _whole(),
    "image_size": _whole(high=LARGEST_SIDE),
    "initializer_factor": _number(0.0, 1e3),
    "initializer_range": _number(0.0, 1e3),
    "intermediate_size": _whole(),
    "key_bias": _flag,
    "layer_norm_eps": _EPSILON,
    "layerscale_value": _number(0.0, 1e3),
    "mlp_bias": _flag,
    "mlp_ratio": _number(1e-3, 64.0),
    "num_attention_heads": _whole(high=1024),
    "num_channels": lambda fields, name: fields.only(name, 3, why="for RGB photos"),
    "num_hidden_layers": _whole(high=512),
    "num_register_tokens": _whole(low=0, high=1024),
    "pooler_act": _choice("tanh", "gelu", "relu", "silu", "linear"),
    "pooler_output_size": _optional(_whole()),
    "projection_dim": _whole(),
    "proj_bias": _flag,
    "qkv_bias": _flag,
    "query_bias": _flag,
    "rope_theta": _number(10.0, 1e6),
    "use_gated_mlp": _flag,
    "use_mask_token": _flag,
    "use_swiglu_ffn": _flag,
    "value_bias": _flag,
    "vision_use_head": _flag,
}
"""Fields of the families of vision transformers."""

SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler",
    "LMSDiscreteScheduler", "PNDMScheduler", "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
"""Schedulers of diffusers whose noise is that of the betas in their file."""
SCHEDULE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
)  # fmt: skip
"""Fields of a scheduler on which abar_t depends."""


def check_scheduler(fields: Fields) -> None:
    """Check the noise schedule in a scheduler_config.json, whose betas are required.

    Args:
        fields: fields of the file.

    Raises:
        CheckpointError: a field is missing or has a value that cannot work.
    """
    fields.choice("_class_name", SCHEDULERS, default="DDIMScheduler")
    steps = fields.whole("num_train_timesteps", low=100, high=100_000)
    fields.flag("rescale_betas_zero_snr", default=False)
    start = fields.number("beta_start", low=1e-8, high=0.999)
    end = fields.number("beta_end", low=1e-8, high=0.999)
    if end < start:
        raise fields.refuse(f"beta_end must be at least beta_start, {start}, not {end}")
    fields.choice("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2"))
    betas = fields.content.get("trained_betas")
    if betas is not None and not (
        isinstance(betas, list)
        and len(betas) == steps
        and all(isinstance(beta, float) and 0 < beta < 1 for beta in betas)
    ):
        raise fields.refuse(f"trained_betas must be null, or {steps} fractions between 0 and 1, as many as timesteps")
