"""A configuration beside its experiment's defaults."""

from omegaconf import OmegaConf

from recipe.paec.config.resolve import composed, resolved
from recipe.paec.report.settings import flat, is_place, settings_of


def test_flat():
    node = {"a": {"b": 1, "c": {}}, "d": [1, 2], "e": [{"f": 3}], "g": None}
    assert flat(node) == {"a.b": 1, "a.c": {}, "d": [1, 2], "e.0.f": 3, "g": None}
    assert flat({}) == {}


def test_what_differs_is_marked():
    config = resolved(composed("experiment=tiny_cpu", "method.rho=0.7", "seed=5", "run.name=mine"))
    found = settings_of(OmegaConf.to_container(config, resolve=True))
    assert found.experiment == "tiny_cpu" and found.note is None
    changed = {entry.key: (entry.value, entry.default) for entry in found.changed}
    assert changed["seed"] == ("5", "1")
    assert changed["method.rho"] == ("0.7", "0.8")
    assert all(key.endswith("seed") or key == "method.rho" for key in changed), changed
    assert not any(is_place(key) for key in changed)
    assert {"run.name", "seed", "data.train_batch_size"} <= {entry.key for entry in found.entries}


def test_methods_come_first_and_once():
    """Without the copies of methods and clip range that the actor gets."""
    config = resolved(composed("experiment=tiny_cpu", "also=clip_higher", "method.rho=0.7"))
    changed = [entry.key for entry in settings_of(OmegaConf.to_container(config, resolve=True)).changed]
    fields = [f"also.clip_higher.{name}" for name in ("_target_", "clip_high", "clip_low")]
    assert changed == ["also", *fields, "method.rho", "actor_rollout_ref.actor.clip_ratio_high"]


def test_a_run_without_overrides_differs_in_nothing():
    config = resolved(composed("experiment=tiny_cpu"))
    assert settings_of(OmegaConf.to_container(config, resolve=True)).changed == ()


def test_keys_of_another_version_differ_too():
    config = OmegaConf.to_container(resolved(composed("experiment=tiny_cpu")), resolve=True)
    config["method"]["width"] = 0.1
    del config["method"]["mask_width"]
    changed = {entry.key: (entry.value, entry.default) for entry in settings_of(config).changed}
    assert changed == {"method.width": ("0.1", ""), "method.mask_width": ("", "0.1")}


def test_the_folder_of_a_relative_path_is_no_difference():
    config = OmegaConf.to_container(resolved(composed("experiment=tiny_cpu")), resolve=True)
    config["data"]["train_files"] = [f"/somewhere/{name}" for name in config["data"]["train_files"]]
    assert settings_of(config).changed == ()
    config["data"]["train_files"] = ["/somewhere/other.parquet"]
    assert [entry.key for entry in settings_of(config).changed] == ["data.train_files"]


def test_without_defaults_nothing_is_marked():
    assert settings_of({}).note == "the configuration was not recorded"
    assert settings_of({"seed": 1}).note.startswith("the configuration names no experiment")
    unknown = settings_of({"run": {"experiment": "no_such_thing"}, "seed": 1})
    assert unknown.note.startswith("the defaults of experiment no_such_thing are not known to this version: ")
    assert unknown.changed == () and [entry.key for entry in unknown.entries] == ["run.experiment", "seed"]
