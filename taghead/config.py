"""A config is a value: what an experiment is, and nothing of the machine that runs it (no paths, device or workers).

`Config` is frozen, validated when it is read, and JSON both ways. `evolve` makes a new one, `canonical` resets the
fields that are not read, so that equal experiments are equal; `identity` is what a trial id is made from.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from taghead.backbones import BACKBONES, check_input
from taghead.backbones.own import is_own, source_of
from taghead.errors import InputError, nearest

EdgeKind = Literal["intra_frame", "time_aligned"]
Triple = tuple[float, float, float]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Value(BaseModel):
    """A frozen model that refuses keys which it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnyValue = TypeVar("AnyValue", bound=Value)


class DataConfig(Value):
    """What the network sees of a clip (UniView sampling, resize, crop, flip)."""

    dataset: str = "haa500"
    num_frames: Positive = 32
    short_side: Positive = 126  # pixels
    crop_size: Positive = 112  # pixels
    train_crop: Literal["random", "random_resized"] = "random"
    flip: Fraction = 0.5  # the probability of a horizontal flip in training
    mean: Triple | None = None  # of the colours in 0..1; None: what the backbone's weights were trained with
    std: Triple | None = None  # likewise
    # the share of each class's training clips that becomes the validation split, where the data set has none
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("mean", "std")
    @classmethod
    def _fractions(cls, colours: Triple | None, field: ValidationInfo) -> Triple | None:
        divides = field.field_name == "std"
        rule = f"0 {'<' if divides else '<='} {field.field_name} <= 1 must hold, since colours are fractions of 1"
        for value in colours or ():
            if not 0 <= value <= 1 or (divides and value == 0):
                raise ValueError(f"{rule}, but got {value}; divide values of 0 to 255 by 255")
        return colours

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop_size > self.short_side:
            raise ValueError(f"crop_size <= short_side must hold, but got {self.crop_size} > {self.short_side}")
        return self


class ModelConfig(Value):
    """The backbone, and which head stands on it."""

    backbone: str = "r2plus1d_34"  # or a user's own, ``my_module:factory``
    backbone_source: str | None = None  # of a user's own: the text of its file, which `evolve` reads
    pretrained: bool = True
    freeze_backbone: bool = False
    norm_momentum: Fraction | None = None  # of the backbone's batch norms; None: the backbone's own
    head: Literal["tag", "linear"] = "tag"

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES and not is_own(name):
            raise ValueError(f"no backbone {name!r} (your own: my_module:factory){nearest(name, BACKBONES)}")
        return name

    @model_validator(mode="after")
    def _has_its_source(self) -> Self:
        if is_own(self.backbone) == (self.backbone_source is None):
            raise ValueError(
                "backbone_source is the source of a backbone of your own, and is read where model.backbone is set: "
                'leave it out, and give backbones by --set or evolve(config, {"model.backbone": "my_module:factory"})'
            )
        return self


class HeadConfig(Value):
    """The TAG-Head (Eq. 1-3); read only where ``model.head`` is ``tag``."""

    width: Positive | None = None  # tokens are first projected to this many channels; None: not at all (the paper)
    positional_encoding: bool = True
    position_init: Literal["zeros", "normal"] = "zeros"
    num_layers: Annotated[int, Field(ge=0)] = 2  # 0: no encoder
    encoder: Literal["attention", "mlp"] = "attention"  # mlp: the control without it, of as many parameters
    num_heads: Positive = 8
    ffn_dim: Positive = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm_first: bool = True
    activation: Literal["relu", "gelu"] = "relu"
    edges: tuple[EdgeKind, ...] = ("intra_frame", "time_aligned")
    edge_combination: Literal["union", "block"] = "union"
    alpha: Fraction = 0.1
    k_prop: Annotated[int, Field(ge=0)] = 10
    edge_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rewiring: Annotated[int, Field(ge=0)] | None = None  # the seed of a control graph of the same degrees
    propagation: Literal["closed_form", "step_by_step"] = "closed_form"
    readout: Literal["mean", "norm_mean", "max", "attention"] = "mean"
    classifier_norm: bool = False

    @field_validator("edges")
    @classmethod
    def _in_one_order(cls, edges: tuple[EdgeKind, ...]) -> tuple[EdgeKind, ...]:
        return tuple(sorted(set(edges)))


class TrainConfig(Value):
    """Adam with a cosine schedule by epoch (Section 4, implementation details)."""

    epochs: Positive = 80
    batch_size: Positive = 8
    lr: Annotated[float, Field(gt=0)] = 1e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"
    order: Literal["reshuffled", "fixed"] = (
        "reshuffled"  # of the training clips; fixed: the same in every epoch and seed
    )
    selection: Literal["last", "best_val"] = "last"
    # of a frozen backbone, whose tokens can be stored once. None: it runs in every epoch, as the paper's; 0: one view
    # is stored, the centre crop of evaluation; K: K augmented views are, and epoch e trains on view e mod K
    token_views: Annotated[int, Field(ge=0)] | None = None
    token_dtype: Literal["float32", "float16"] = "float32"  # of stored tokens


class Config(Value):
    """One experiment but for its seed: data, model, head, training."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    head: HeadConfig = HeadConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if is_own(self.model.backbone):
            return self  # what it takes is known only once it is built
        check_input(self.model.backbone, self.data.num_frames, self.data.crop_size)
        channels = self.head.width or BACKBONES[self.model.backbone].channels
        attends = self.model.head == "tag" and self.head.num_layers and self.head.encoder == "attention"
        if attends and channels % self.head.num_heads:
            raise ValueError(
                f"head.num_heads must divide the {channels} channels of the tokens, but got {self.head.num_heads}"
            )
        return self


def read_versioned(path: Path, kind: type[AnyValue], *, version: int, what: str, remedy: str = "") -> AnyValue:
    """Reads a value from a JSON file that says by ``schema_version`` how it was written.

    Args:
        path: The file.
        kind: What it holds.
        version: The newest that can be read.
        what: What it is called.
        remedy: What to do about a damaged one, with which the error ends.

    Raises:
        InputError: There is no such file, it is damaged, or a newer version wrote it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema_version"] > version:
            raise InputError(f"{path}: written by a newer taghead (schema {values['schema_version']}); upgrade.")
        return kind.model_validate(values)
    except FileNotFoundError:
        raise InputError(f"{path}: no such {what}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0]
    raise InputError(f"{path}: not a {what} ({reason}){remedy}.")


def load(text: str, *, source: str = "config") -> Config:
    """Reads a config from JSON.

    Args:
        text: The JSON object.
        source: Where it came from, for the error message.

    Raises:
        InputError: Not JSON, a key that is not known, or a value that breaks a rule.
    """
    try:
        return build(json.loads(text))
    except json.JSONDecodeError as error:
        raise InputError(f"{source}:{error.lineno}: not valid JSON: {error.msg}.") from None
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def build(values: Mapping[str, Any]) -> Config:
    """Makes a config from nested values, naming the first key or value that is wrong.

    Raises:
        InputError: As `load`.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, defaults())}"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] != "value_error":  # pydantic's own sentence, which does not say what it was given
        given = "" if isinstance(first["input"], dict) else f", but got {first['input']!r}"
        message = f"{message[:1].lower()}{message[1:]}{given}"
    return f"{key}: {message}".removeprefix(": ") + ("" if message.endswith("?") else ".")


def flatten(config: Config) -> dict[str, Any]:
    """A config as dotted keys and JSON values: ``{"head.alpha": 0.1, ...}``."""
    values = config.model_dump(mode="json")
    return {f"{section}.{name}": value for section, fields in values.items() for name, value in fields.items()}


def defaults() -> dict[str, Any]:
    """Every dotted key with its default."""
    return flatten(Config())


def evolve(base: Config, overrides: Mapping[str, Any]) -> Config:
    """A new config with some dotted keys changed; the base stays as it is.

    Where ``model.backbone`` is set to a user's own, the source is read from its file now.

    Args:
        base: The config to start from.
        overrides: Values by dotted key, as ``{"head.alpha": 0.2}``.

    Raises:
        InputError: A key that is not known, or a value that breaks a rule.
    """
    values = base.model_dump()
    if "model.backbone" in overrides and "model.backbone_source" not in overrides:
        overrides = {**overrides, "model.backbone_source": source_of(str(overrides["model.backbone"]))}
    for key, value in overrides.items():
        _check_key(key)
        section, name = key.split(".")
        values[section][name] = value
    return build(values)


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Reads ``key=value`` as given to ``--set``; the field's type says how the text is read.

    ``1e-5`` is a number, ``false`` is False, ``none`` is None where the field allows it; a tuple's items are
    separated by commas, and ``none`` is the empty tuple.

    Raises:
        InputError: No ``=``, a key that is not known, a text that is no value of that field's type.
    """
    overrides = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set takes key=value, as in --set head.alpha=0.2, but got {assignment!r}.")
        overrides[key.strip()] = _read(key.strip(), text.strip())
    return overrides


def _check_key(key: str) -> None:
    if key not in (known := defaults()):
        raise InputError(f"unknown key {key!r}{nearest(key, known)}")


def _read(key: str, text: str) -> Any:
    _check_key(key)
    section, name = key.split(".")
    field = type(getattr(Config(), section)).model_fields[name]
    value: Any = text
    if text.lower() in ("none", "null"):
        value = () if get_origin(field.annotation) is tuple else None
    elif "tuple" in str(field.annotation).lower():
        value = tuple(part.strip() for part in text.strip("()[]").split(",") if part.strip())
    try:
        return TypeAdapter[Any](field.annotation).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = "field required (values are separated by commas)" if first["type"] == "missing" else first["msg"]
        raise InputError(f"--set {key}: {message[:1].lower()}{message[1:]}, but got {text!r}.") from None


def stores_tokens(config: Config) -> bool:
    """Whether the head is trained on tokens that a frozen backbone made once."""
    return config.model.freeze_backbone and config.train.token_views is not None


def canonical(config: Config) -> Config:
    """The same experiment with every field that is not read set to its default.

    Configs that differ only there are one experiment and get one trial id. Rows that are equal by derivation only
    (intra-frame edges under a mean readout, say) stay apart: they are trained, and must come out equal.
    """
    unread = set(_unread(config))
    return evolve(config, {key: value for key, value in defaults().items() if key in unread})


def _unread(config: Config) -> Iterable[str]:
    head = config.head
    yield from _unread_before_the_head(config)
    if config.model.head == "linear":
        yield from (f"head.{name}" for name in HeadConfig.model_fields)
        return
    if not head.positional_encoding:
        yield "head.position_init"
    if head.num_layers == 0:
        yield from (f"head.{name}" for name in ("encoder", "ffn_dim", "dropout", "norm_first", "activation"))
    if head.num_layers == 0 or head.encoder == "mlp":
        yield "head.num_heads"
    if not head.edges:
        yield "head.k_prop"
    if not head.edges or head.k_prop == 0:
        yield from (f"head.{name}" for name in ("alpha", "edge_dropout", "rewiring", "propagation"))
    if head.rewiring is not None and head.readout != "mean":
        yield "head.propagation"  # the control graph is then propagated step by step anyway
    if len(head.edges) < 2 or head.k_prop == 0:
        yield "head.edge_combination"


def _unread_before_the_head(config: Config) -> Iterable[str]:
    if config.model.freeze_backbone:
        yield "model.norm_momentum"
    if not stores_tokens(config):
        yield from ("train.token_views", "train.token_dtype")
    elif config.train.token_views == 0:
        yield from ("data.train_crop", "data.flip")  # nothing is drawn


def identity(config: Config) -> dict[str, Any]:
    """What tells this experiment from all others: the read fields that differ from their defaults, by dotted key.

    A field that is added later, with a default that keeps the old behaviour, changes no identity.
    """
    known = defaults()
    return {key: value for key, value in flatten(canonical(config)).items() if value != known[key]}
