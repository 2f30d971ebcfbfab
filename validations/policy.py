"""Thresholds as data: one YAML file a purpose, read strictly, named by its digest.

A rule names a metric, how to aggregate it, one limit and a severity. Limits are absolute (`at_least`, `at_most`) or stand
against the parent (`margin`, `rise`, `at_most_ratio`, `at_least_ratio`), so a weak base model is not blamed for its own
weakness and a strong one may not be spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from editors.contract import Frozen, Purpose
from editors.digest import canonical_json, digest_bytes
from editors.errors import ConfigError, IntegrityError
from validations.approval import Approval, ChannelOverride
from validations.contract import OF_PARENT, Severity

Aggregate = Literal["mean", "min", "max", "every", "count"]
FOLDER = Path(__file__).with_name("policies")
EVERY_PURPOSE = ("locality", "perplexity", "integrity")
ALWAYS_MEASURED: Mapping[Purpose, tuple[str, ...]] = {
    "update": ("efficacy", *EVERY_PURPOSE), "removal": ("efficacy", *EVERY_PURPOSE),
    "forget": ("exposure", "extraction", *EVERY_PURPOSE), "detoxify": ("diversity", *EVERY_PURPOSE),
    "debias": ("leaning", "mass", *EVERY_PURPOSE)}
"""Probes without which nothing is judged, by purpose: each needs a critical rule with `required` of at least 1."""
LARGEST = 1e300
"""Stands for "no bound" where Great Expectations would let infinity through."""
ROUNDING = 1e-9
"""Slack of every bound, far under any limit, so that a sum's last bit decides nothing."""


class PolicyRule(Frozen):
    """One rule of a policy."""

    name: str = Field(pattern=r"^[a-z_]+\.[a-z_]+$")
    """`<probe>.<what>`; the name a refusal carries."""
    meaning: str = Field(min_length=1)
    """What the rule asks, in one plain sentence; shown on the verdict page."""
    metric: tuple[str, ...] = ()
    """The metric judged; default the rule's name. Of several, each prompt is judged by the first it was measured by."""
    aggregate: Aggregate = "mean"
    """`every` holds each row to the limit; `count` is the number of rows that are not zero."""
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)
    margin: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The candidate may be this much under the parent, in the metric's own unit."""
    rise: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The candidate may be this much over the parent, where less is better, in the metric's own unit."""
    at_most_ratio: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The candidate may be this many times the parent."""
    at_least_ratio: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The candidate must be this many times the parent."""
    severity: Severity = "critical"
    required: int = Field(default=0, ge=0)
    """Rows without which the rule fails, beyond those the sheet's requests promise. 0: judged where promised."""

    @field_validator("metric", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_sound(self) -> PolicyRule:
        absolute = self.at_least is not None or self.at_most is not None
        kinds = sum([absolute, self.margin is not None, self.rise is not None, self.is_ratio])
        if kinds > 1:
            raise ValueError("gives several limits: use at_least and/or at_most, or margin, or rise, or ratios")
        if kinds == 0 and self.severity != "info":
            raise ValueError("has no limit, so it could never fail: add at_least, at_most, margin, rise or a ratio, "
                             "or make its severity info")
        low, high = self.bounds
        if low > high:
            raise ValueError(f"can never pass: at_least {self.at_least} is above at_most {self.at_most}")
        if self.aggregate == "count" and not absolute:
            raise ValueError("counts rows, so its limit is at_least or at_most")
        if self.severity != "info" and any(metric.endswith(".teacher_forced") for metric in self.metrics):
            raise ValueError("judges by teacher-forced accuracy, which is a diagnostic: use severity info, "
                             "or the metric .generate_exact")
        if any(self.probe in probes for probes in ALWAYS_MEASURED.values()) and self.severity != "info" and self.required < 1:
            raise ValueError(f"may pass unmeasured: {self.probe} rules need `required: 1` or more")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics judged, the preferred first."""
        return self.metric or (self.name,)

    @property
    def is_ratio(self) -> bool:
        """Whether candidate / parent is held to the limit."""
        return self.at_most_ratio is not None or self.at_least_ratio is not None

    @property
    def probe(self) -> str:
        """The probe the rule stands on."""
        return self.name.partition(".")[0]

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest judged value that pass; both always finite."""
        if self.margin is not None:
            return -self.margin - ROUNDING, LARGEST
        if self.rise is not None:
            return -LARGEST, self.rise + ROUNDING
        low, high = (self.at_least_ratio, self.at_most_ratio) if self.is_ratio else (self.at_least, self.at_most)
        return (-LARGEST if low is None else low - ROUNDING,
                LARGEST if high is None else high + ROUNDING)

    @property
    def limit(self) -> str:
        """The limit as people read it."""
        each = {"mean": "", "every": "each ", "count": "count ", "min": "smallest ", "max": "largest "}[self.aggregate]
        if self.margin is not None:
            return f"{each}>= parent - {self.margin:g}" if self.margin else f"{each}>= parent"
        if self.rise is not None:
            return f"{each}<= parent + {self.rise:g}" if self.rise else f"{each}<= parent"
        if self.at_most_ratio is not None:
            return f"{each}<= {self.at_most_ratio:g} {OF_PARENT}"
        if self.at_least_ratio is not None:
            return f"{each}>= {self.at_least_ratio:g} {OF_PARENT}"
        parts = [f"{sign} {bound:g}" for sign, bound in ((">=", self.at_least), ("<=", self.at_most)) if bound is not None]
        return each + " and ".join(parts) if parts else "reported only"


class Policy(Frozen):
    """Everything the gate decides by, for one purpose."""

    purpose: Purpose
    approval: Approval = Approval()
    rules: tuple[PolicyRule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_complete(self) -> Policy:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names the rule {twice[0]!r} twice")
        for probe in ALWAYS_MEASURED[self.purpose]:
            if not any(rule.probe == probe and rule.severity == "critical" for rule in self.rules):
                raise ValueError(f"has no critical rule on {probe}, so it would release without looking at it")
        return self

    @cached_property
    def content(self) -> bytes:
        """The policy as canonical JSON, which its digest covers."""
        return canonical_json({**self.model_dump(mode="json"), "approval": self.approval.document()})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `content`."""
        return digest_bytes(self.content)

    def approves_itself(self, channel: str) -> bool:
        """Whether a passed candidate of `channel` is approved without a named person."""
        return channel in self.approval.auto_channels


def policy_for(purpose: str) -> Policy:
    """The policy shipped for a purpose.

    Raises:
        ConfigError: there is none.
    """
    path = FOLDER / f"{purpose}.yaml"
    if not path.exists():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        raise ConfigError(f"there is no policy for the purpose {purpose!r}", f"use one of {', '.join(known)}")
    return load_policy(path)


def read_policy(content: bytes, where: str) -> Policy:
    """A policy as it was kept with a candidate; `where` names it in the error.

    Raises:
        IntegrityError: it is no sound policy.
    """
    try:
        return Policy.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise IntegrityError(f"{where} is no sound policy: {'.'.join(map(str, problem['loc']))}: {problem['msg']}",
                             "restore the blob from a backup, or use the version of Suture that wrote it") from error


def load_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        ConfigError: it cannot be read, or a rule is wrong; the message carries every problem found.
    """
    import yaml

    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_strict_loader())  # noqa: S506 (a SafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"the policy {path} cannot be read: {error}", "mend the file") from error
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        # the YAML reader lets through what its constructors of dates, numbers and keys raise
        raise ConfigError(f"the policy {path} cannot be read: {type(error).__name__}: {error}", "mend the file") from error
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_describe(problem, document) for problem in error.errors())
        raise ConfigError(f"the policy {path} is wrong: {problems}", "mend the file") from error


def _strict_loader() -> Any:
    """A safe loader that refuses a key given twice, where YAML would silently keep the last."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for number, key in enumerate(keys):
                if key in keys[:number]:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice",
                                                            node.value[number][0].start_mark)
            return super().construct_mapping(node, deep)

    return StrictLoader


def _describe(problem: Any, document: Any) -> str:
    place = list(problem["loc"])
    where = ".".join(str(part) for part in place) or "the file"
    if place[:1] == ["rules"] and len(place) > 1 and isinstance(document["rules"][place[1]], dict):
        named = document["rules"][place[1]].get("name", place[1])
        where = ".".join([f"rule {named}", *(str(part) for part in place[2:])])
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    parts: dict[Any, type[BaseModel]] = {"rules": PolicyRule, "approval": Approval}
    model = parts.get(place[0], Policy) if len(place) > 1 else Policy
    if place[:2] == ["approval", "channels"]:
        model = ChannelOverride
    near = get_close_matches(str(place[-1]), model.model_fields, 1)
    return f"{where}: unknown key" + (f", did you mean {near[0]!r}?" if near else "")
