"""Weights follow from the models they are fitted on, and say how they do on models left out."""

import json
import math
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from agnes_zoo.scoring.calibrating import Known, every_fit, fit

from agnes.errors import UsageError
from agnes.traits import Trait

RNG = np.random.default_rng(0)


def models(strength, count=20, sources=("a", "b: x", "b: y")):
    """Clean models and as many trojaned ones, which the first source tells apart by so many deviations."""
    found = []
    for number in range(2 * count):
        trojaned = number >= count
        said = {s: float(RNG.normal(strength if trojaned and s == sources[0] else 0)) for s in sources}
        found.append(Known(f"model-{number}", trojaned, {s: Trait(s, None, value) for s, value in said.items()}))
    return found


def with_source(known, source, strength, odd=0.0):
    """The same models with a further source, that tells them apart or not; `odd`: what it says of the first."""
    said = [float(RNG.normal(strength * model.trojaned)) for model in known]
    said[0] += odd
    more = [Trait(source, None, value) for value in said]
    return [replace(model, traits={**model.traits, source: each}) for model, each in zip(known, more, strict=True)]


def test_every_set_of_methods_has_a_fit_and_a_methods_sources_stay_together():
    known = with_source(models(9, sources=("b: x", "b: y")), "a", 9)
    assert {fit.sources for fit in every_fit(known)} == {("a",), ("b: x", "b: y"), ("a", "b: x", "b: y")}


def test_methods_by_which_no_network_could_be_acquitted_have_no_fit():
    known = with_source(models(0, sources=("b",)), "a", 9)
    assert {fit.sources for fit in every_fit(known)} == {("a",), ("a", "b")}
    idle = fit(known, ("b",))
    assert 1 / (1 + math.exp(-idle.intercept)) >= idle.threshold / 2


def test_methods_by_which_no_network_could_be_convicted_have_no_fit():
    known = with_source(models(9, count=10, sources=("b",)), "a", 9, odd=1e12)
    assert fit(known, ("a",)).threshold > 1
    assert {fit.sources for fit in every_fit(known)} == {("b",)}


@pytest.mark.parametrize(("clean", "trojaned"), [(0, 0), (0, 5), (1, 5), (5, 0), (5, 1)])
def test_too_few_networks_of_a_kind_are_told_in_one_line(clean, trojaned):
    known = models(9, count=5)
    with pytest.raises(UsageError, match=f"two trojaned networks at least: these are {clean} and {trojaned}$"):
        every_fit([*known[:clean], *known[5 : 5 + trojaned]])


def test_two_networks_of_each_kind_will_do():
    known = models(99, count=2, sources=("a",))
    assert [fit.sources for fit in every_fit(known)] == [("a",)]


def test_networks_that_no_method_has_in_common_are_told_in_one_line():
    first, *rest = models(9)
    with pytest.raises(UsageError, match="no method said something of every network"):
        every_fit([replace(first, traits={"other": Trait("other", None, 1.0)}), *rest])


def test_methods_of_which_none_tells_the_networks_apart_make_no_file():
    with pytest.raises(UsageError, match="no set of methods tells these networks apart"):
        every_fit(models(-3, sources=("a",)))


def test_a_source_that_tells_models_apart_does_so_beside_others_that_do_not():
    found = fit(models(8), ("a", "b: x", "b: y"))
    assert found.auc > 0.97
    assert found.weight > 0


def test_kinds_of_backdoors_that_each_show_in_one_source_alone_are_all_told_apart():
    clean, *kinds = models(0), models(9, sources=("a", "b: x", "b: y")), models(9, sources=("b: x", "a", "b: y"))
    known = [m for m in clean if not m.trojaned] + [m for kind in kinds for m in kind if m.trojaned]
    assert fit(known, ("a", "b: x")).auc > 0.97
    assert fit(known, ("b: y",)).auc < 0.75


def test_findings_that_say_nothing_are_not_believed_on_models_left_out():
    found = fit(models(0, count=40), ("a", "b: x", "b: y"))
    assert found.auc < 0.7  # below a half is no knowledge either: each model is left out of the mean it is measured by
    assert all(0.2 < probability < 0.8 for probability in found.left_out)


def test_no_clean_model_is_convicted_when_left_out():
    for strength in (0, 1, 5):
        known = models(strength)
        found = fit(known, ("a",))
        clean = [p for p, model in zip(found.left_out, known, strict=True) if not model.trojaned]
        assert found.threshold == max(0.5, max(clean) + 1e-4)


@pytest.mark.parametrize("kin", ["arch", "data"])
def test_nor_when_all_that_are_like_it_are_left_out(kin):
    known = [replace(model, **{kin: "odd" if number % 4 == 0 else "other"}) for number, model in enumerate(models(5))]
    lifted = [replace(m, traits=up(m.traits, 3.0)) if getattr(m, kin) == "odd" else m for m in known]
    found, alone = fit(lifted, ("a",)), fit([replace(m, **{kin: ""}) for m in lifted], ("a",))
    assert found.left_out == alone.left_out
    probabilities = []
    for each in ("odd", "other"):
        rest = fit([m for m in lifted if getattr(m, kin) != each], ("a",))
        (middle, spread) = rest.clean["a"]
        for model in lifted:
            if getattr(model, kin) == each and not model.trojaned:
                above = max(0.0, (model.traits["a"].value - middle) / spread)
                probabilities.append(1 / (1 + math.exp(-rest.intercept - rest.weight * math.log1p(above))))
    assert found.threshold == pytest.approx(max(probabilities) + 1e-4)
    assert found.threshold > alone.threshold


def up(traits, by):
    return {source: replace(trait, value=trait.value + by) for source, trait in traits.items()}


def test_the_fit_is_where_the_penalised_likelihood_is_highest():
    known = models(2)
    found = fit(known, ("a",))
    middle, spread = found.clean["a"]

    def cost(weight, intercept):
        total = weight**2 / 2
        for model in known:
            lifted = math.log1p(max(0.0, (model.traits["a"].value - middle) / spread))
            sign = 1 if model.trojaned else -1
            total += math.log1p(math.exp(-sign * (weight * lifted + intercept)))
        return total

    best = cost(found.weight, found.intercept)
    for step in (-0.01, 0.01):
        assert cost(found.weight + step, found.intercept) > best
        assert cost(found.weight, found.intercept + step) > best


def test_a_model_left_out_is_judged_by_the_others_alone():
    known = models(3, count=6)
    probabilities = fit(known, ("a", "b: x")).left_out
    for place in (0, 7):
        rest = fit([*known[:place], *known[place + 1 :]], ("a", "b: x"))
        above = [
            max(0.0, (known[place].traits[s].value - middle) / spread) for s, (middle, spread) in rest.clean.items()
        ]
        odds = rest.intercept + rest.weight * math.log1p(math.sqrt(sum(each**2 for each in above)))
        assert probabilities[place] == pytest.approx(1 / (1 + math.exp(-odds)))


def pointing(together, count=60):
    """Clean models, and trojaned ones in which each method finds as much; these point to one class, or to two."""
    found, values = [], np.random.default_rng(0).exponential(size=(count, 2)).tolist()
    for number in range(2 * count):
        trojaned = number >= count
        targets = {"a": 1, "b: x": 1 if trojaned and together else 2}
        said = {s: {of: v, 10 + of: 0.0} for (s, of), v in zip(targets.items(), values[number % count], strict=True)}
        traits = {s: Trait(s, targets[s], of[targets[s]], of) for s, of in said.items()}
        found.append(Known(f"model-{number}", trojaned, traits))
    return found


def test_that_methods_agree_on_a_class_is_learnt_from():
    agreeing, differing = (fit(pointing(together), ("a", "b: x")) for together in (True, False))
    assert agreeing.weight > 0.01 > differing.weight


def test_what_the_file_says_of_a_model_is_read_as_it_was():
    (known, *_) = pointing(together=True)
    odd = replace(known, traits={**known.traits, "c": Trait("c", None, 1.5), "d": Trait("d", 4, 0.5)})
    read = Known.from_json(json.loads(json.dumps(odd.as_json())))
    assert (read.name, read.trojaned) == (odd.name, odd.trojaned)
    for source, trait in odd.traits.items():
        again = read.traits[source]
        assert (again.source, again.target, again.value) == (source, trait.target, trait.value)
        assert again.said == trait.said


def test_middle_and_spread_are_those_of_the_clean_models():
    known = models(4)
    middle, spread = fit(known, ("a",)).clean["a"]
    clean = np.array([model.traits["a"].value for model in known if not model.trojaned])
    assert middle == pytest.approx(clean.mean())
    assert spread == pytest.approx(clean.std())


def test_an_odd_clean_model_makes_what_it_shows_speak_for_less():
    known = models(4)
    odd = [Known("odd", False, {**known[0].traits, "a": Trait("a", None, 9.0)}), *known[1:]]
    (middle, spread), (moved, wider) = (fit(some, ("a",)).clean["a"] for some in (known, odd))
    assert (6.0 - moved) / wider < 0.8 * (6.0 - middle) / spread


def test_trojaned_models_that_look_cleaner_than_clean_ones_get_no_weight_for_it():
    assert fit(models(-3), ("a",)).weight >= 0


def test_the_shipped_weights_follow_from_the_models_that_the_file_lists():
    file = json.loads(resources.files("agnes").joinpath("calibration.json").read_text(encoding="utf-8"))
    known = [Known.from_json(model) for model in file["models"]]
    assert sum(model.trojaned for model in known) >= 20
    assert sum(not model.trojaned for model in known) >= 20
    for found, said in zip(every_fit(known), file["weighings"], strict=True):
        assert found.intercept == pytest.approx(said["intercept"], abs=1e-3)
        assert found.weight == pytest.approx(said["weight"], abs=1e-3)
        assert found.threshold == pytest.approx(said["threshold"], abs=1e-3)
        assert found.sources == tuple(said["clean"])
        for source, numbers in said["clean"].items():
            assert found.clean[source] == pytest.approx(tuple(numbers), abs=1e-3)
