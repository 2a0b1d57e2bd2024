"""The unit of Hbar follows from the configuration of its method."""

from recipe.paec.run.metric_names import hbar_unit


def test_the_unit_of_hbar():
    assert hbar_unit({"method": {"entropy": "normalized"}}, "actor/paec/floor") == ""
    assert hbar_unit({"method": {"entropy": "full"}, "also": None}, "actor/paec/") == "nats"
    assert hbar_unit({}, "actor/paec/") == "nats", "a configuration that cannot be read"


def test_of_two_methods_each_has_its_own():
    config = {"method": {"entropy": "full"}, "also": {"siren": {"entropy": "normalized"}}}
    assert [hbar_unit(config, f"actor/{name}/anchor") for name in ("paec", "siren")] == ["nats", ""]
