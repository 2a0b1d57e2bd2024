"""Which metrics belong into which chart, with names and units: the one list behind the page and the figures."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.paec.report.responses import PREFIX as RESPONSES
from recipe.paec.run.metric_names import NATS

TOKENS, SECONDS, PERCENT, CHARACTERS, GIB = "tokens", "s", "%", "characters", "GiB"
OF_HBAR = "of Hbar"
"""In place of a unit: that of Hbar, which depends on the run (`hbar_unit`)."""


@dataclass(frozen=True)
class Line:
    """One quantity of a chart: the metrics whose names match, each a line."""

    pattern: str
    """Regular expression for the complete name of a metric."""
    label: str
    """May use groups of the pattern, as \\1."""
    minor: bool = False
    """Left out where several runs are overlaid."""
    dashes: int = 0
    """Index of its dash pattern beside other lines of one run's colour."""
    points: bool = False
    """Points without a line, for what only some steps have."""
    if_any: bool = False
    """Left out where every value is 0, which then means "not applicable"."""


@dataclass(frozen=True)
class Spec:
    """One chart over training steps."""

    id: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    note: str = ""
    scale: float = 1.0
    """Factor from the metric to the unit."""
    together: bool = False
    """With several runs: all lines in one chart, told apart by dashes; otherwise a chart for each line."""
    wide: bool = False
    bare: bool = False
    """With several runs, the name of a line is the complete title of its chart."""
    optional: bool = False
    """Not mentioned where it is not recorded."""


@dataclass(frozen=True)
class Section:
    """Charts under one heading."""

    id: str
    title: str
    specs: tuple[Spec, ...]


METHOD = r"actor/(?!perf/|entropy/)(\w+)/"
VAL = r"val/(.+)/"

ENTROPY = Section(
    "entropy",
    "Entropy",
    (
        Spec(
            "entropy",
            "Token entropy",
            NATS,
            (
                Line("actor/entropy", "all tokens"),
                Line(METHOD + "selected_entropy", "H\u0304, selected positions"),
                Line(METHOD + "anchor", "anchor", dashes=1, minor=True),
                Line(METHOD + "floor", "floor", dashes=2, minor=True),
            ),
            "Mean entropy of the policy's next-token distribution over the response tokens of a step.",
            wide=True,
        ),
        Spec(
            "penalty",
            "Penalty",
            "loss",
            (Line(METHOD + "penalty", "penalty"),),
            "0 while H\u0304 is above the floor, and during the anchor's steps.",
            optional=True,
        ),
        Spec(
            "entropy-outcome",
            "Entropy by outcome",
            NATS,
            (
                Line("actor/entropy/right", "right"),
                Line("actor/entropy/wrong", "wrong"),
                Line("actor/entropy/(?!(?:right|wrong|truncated)$)(.+)", r"\1", minor=True, dashes=2),
            ),
            "Mean over the tokens of the step's responses with the full score, and of the others; with several data "
            "sources also of each.",
            optional=True,
        ),
        Spec(
            "entropy-cut-off",
            "Entropy of cut-off responses",
            NATS,
            (Line("actor/entropy/truncated", "cut off", points=True),),
            "Mean over the tokens of the step's responses that were cut off at the length limit, often a single one.",
            optional=True,
        ),
        Spec(
            "entropy-where",
            "Entropy by position",
            NATS,
            (
                Line(METHOD + "entropy_selected", "selected tokens"),
                Line(METHOD + "entropy_unselected", "other tokens"),
                Line(METHOD + "nucleus_entropy", "within the nucleus", minor=True, dashes=1),
            ),
            optional=True,
        ),
    ),
)

VALIDATION = Section(
    "validation",
    "Validation",
    (
        Spec("avg", "Accuracy", PERCENT, (Line(VAL + r"(avg@\d+)", r"\2 \1"),), scale=100, wide=True),
        Spec("maj", "Majority vote", PERCENT, (Line(VAL + r"(maj@\d+)", r"\2 \1"),), scale=100),
        Spec("pass", "pass@k", PERCENT, (Line(VAL + r"(pass@\d+)", r"\2 \1"),), scale=100, bare=True),
        Spec(
            "grading",
            "Grading",
            PERCENT,
            (
                Line(VAL + "unparsable", r"no answer, \1"),
                Line(VAL + "disagreement", r"graders disagree, \1"),
                Line(VAL + "grader_timeout", r"grader timed out, \1", minor=True),
                Line(VAL + "grader_error", r"grader failed, \1", minor=True),
            ),
            scale=100,
            optional=True,
        ),
    ),
)

ROLLOUTS = Section(
    "rollouts",
    "Rollouts",
    (
        Spec(
            "reward",
            "Score of the training responses",
            "score",
            (
                Line("critic/score/mean", "graded score"),
                Line("critic/rewards/mean", "reward after the method", minor=True, dashes=1),
            ),
        ),
        Spec(
            "length",
            "Response length",
            TOKENS,
            (
                Line("response_length/mean", "mean"),
                Line("response_length/max", "longest", minor=True, dashes=1),
                Line("response_length/min", "shortest", minor=True, dashes=2),
            ),
        ),
        Spec(
            "truncation",
            "Cut-off and unusable responses",
            PERCENT,
            (
                Line("reward/cut_off", "at the length limit"),
                Line("reward/repetition", "repeating themselves", dashes=1),
                Line("response/aborted_ratio", "aborted", minor=True),
                Line("reward/grader_error", "grader failed", minor=True),
                Line("reward/grader_timeout", "grader timed out", minor=True),
            ),
            "The length limit is data.max_response_length. A response repeats itself if zlib compresses its last "
            "10,000 characters to less than 10 %; one of 200 characters or fewer never does.",
            scale=100,
        ),
        Spec(
            "format",
            "Responses with an answer",
            PERCENT,
            (Line("reward/format", "with an answer"),),
            scale=100,
            optional=True,
        ),
        Spec(
            "diversity",
            "Differences between responses to a prompt",
            PERCENT,
            (
                Line(RESPONSES + "mixed", "prompts with mixed scores"),
                Line(RESPONSES + "distinct", "different texts per prompt"),
            ),
            "From the recorded rollouts. A prompt whose responses all have one score has no group-relative advantage.",
            scale=100,
            bare=True,
        ),
        Spec(
            "right-wrong",
            "Length of right and wrong responses",
            CHARACTERS,
            (Line(RESPONSES + "length_right", "score 1"), Line(RESPONSES + "length_wrong", "other scores")),
            "From the texts of the recorded rollouts.",
        ),
    ),
)

UPDATE = Section(
    "update",
    "Update",
    (
        Spec(
            "clip",
            "Clipped tokens",
            PERCENT,
            (
                Line("actor/pg_clipfrac", "clipped"),
                Line("actor/pg_clipfrac_lower", "by the dual clip", dashes=1),
                Line(r"actor/(\w*clip\w*)(?<!pg_clipfrac)(?<!pg_clipfrac_lower)", r"\1"),
                Line(METHOD + r"(\w*clip_?frac\w*)", r"\2"),
            ),
            "Share of tokens whose ratio left the clip range. With one update a step, ratios are 1 and nothing is.",
            scale=100,
        ),
        Spec("grad", "Gradient norm", "norm before clipping", (Line("actor/grad_norm", "gradient"),)),
        Spec(
            "share",
            "The method's share of the gradient",
            "share",
            (Line(r"actor/(?:\w+/)?(\w*grad\w*(?:share|ratio|cos\w*)\w*)", r"\1"),),
        ),
        Spec(
            "mismatch",
            "Log-probs: rollout against actor",
            "difference in probability",
            (
                Line("training/rollout_probs_diff_mean", "mean"),
                Line("training/rollout_probs_diff_max", "greatest", dashes=1),
            ),
            "How far the probabilities under which vLLM sampled are from the actor's. Large values mean that the two "
            "run different weights or different numerics.",
        ),
        Spec("kl", "KL of the rollout's policy", NATS, (Line("rollout_corr/kl", "rollout to actor"),), optional=True),
        Spec("ppo-kl", "Change by the step's updates", NATS, (Line("actor/ppo_kl", "mean log-ratio"),)),
        Spec(
            "loss",
            "Policy loss",
            "loss",
            (Line("actor/pg_loss", "policy gradient"), Line("actor/loss", "with the method's term", dashes=1)),
            optional=True,
        ),
        Spec("lr", "Learning rate", "per update", (Line("actor/lr", "learning rate"),), optional=True),
    ),
)

TIME = Section(
    "time",
    "Time and memory",
    (
        Spec(
            "seconds",
            "Duration of a step",
            SECONDS,
            (Line("timing_s/step", "step"), Line("timing_s/testing", "validation after it", minor=True)),
        ),
        Spec("throughput", "Throughput", "tokens / s per device", (Line("perf/throughput", "tokens per second"),)),
        Spec(
            "memory",
            "Memory",
            GIB,
            (
                Line("actor/perf/cpu_memory_used_gb", "machine, in use"),
                Line("actor/perf/max_memory_allocated_gb", "device, allocated", if_any=True),
                Line("actor/perf/max_memory_reserved_gb", "device, reserved", dashes=1, if_any=True),
            ),
            "In use on the machine is the memory of all its programs, not only of the run.",
        ),
    ),
)

SECTIONS = (ENTROPY, VALIDATION, ROLLOUTS, UPDATE, TIME)

METHOD_UNITS = {
    "mask_mass": ("Mass of the mask", PERCENT, 100),
    "selected_fraction": ("Selected tokens", PERCENT, 100),
    "competition": ("Competition of the top two tokens", "mean", 1),
    "normalized_entropy": ("Normalised nucleus entropy", "mean", 1),
    "single_token_nucleus_fraction": ("Nucleus of a single token", PERCENT, 100),
    "single_token_nucleus_fraction_selected": ("Nucleus of a single token, selected tokens", PERCENT, 100),
    "nucleus_size_mean": ("Size of the nucleus, mean", TOKENS, 1),
    "nucleus_size_p90": ("Size of the nucleus, 90th percentile", TOKENS, 1),
    "update_selected_entropy": ("H\u0304 in the updates", OF_HBAR, 1),
    "update_staleness": ("H\u0304 before the update minus in it", OF_HBAR, 1),
    "update_coefficient": ("Coefficient of the entropy term", "", 1),
    "update_penalty": ("Penalty in the updates", "loss", 1),
    "update_mask_mass": ("Mass of the mask in the updates", PERCENT, 100),
    "penalty_active": ("Penalty active", "1 if active", 1),
    "reward": ("Reward after the method", "score", 1),
}
"""Metric of a method -> title, unit and factor; others are drawn under their own name, without a unit."""
