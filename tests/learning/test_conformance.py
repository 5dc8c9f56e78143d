"""What every task and every architecture of the tables must do; a new one is tested before anybody writes a test."""

import base64
import copy
import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from runs import BEST_SCORES, EXACT, LEAST_LOSSES, RATES, Recorder, Run, run, saved, spec_of, table_for, write

from learning import checkpoint
from learning.architectures import ARCHITECTURES
from learning.capabilities import Generative, fits
from learning.data import open_table
from learning.errors import InvalidData, InvalidInput
from learning.model import load
from learning.packing import joined
from learning.precision import predicting
from learning.prediction import Predictor, describe
from learning.preparation import encode_part, prepare
from learning.tasks import TASKS

PAIRS = [(task, name) for task in TASKS for name, a in ARCHITECTURES.items() if fits(TASKS[task], a)]
SUPERVISED = [(task, name) for task, name in PAIRS if TASKS[task].kind == "finetune"]
PRETRAINING = [task for task in TASKS if TASKS[task].kind == "pretrain"]
SHORT = {"epochs": 4, "batch_size": 8}
# After so many passes most have learned; the others are given as many as are allowed.
FEW_PASSES = 40


STARTS = [(base, *pair) for base in PRETRAINING for pair in SUPERVISED if (base, pair[1]) in PAIRS]


def covering(combinations):
    """The combinations as parameters; those whose every name is in an earlier one are left to the long run."""
    seen = set()
    parameters = []
    for combination in combinations:
        parameters.append(pytest.param(*combination, marks=[pytest.mark.slow] if seen.issuperset(combination) else []))
        seen |= set(combination)
    return parameters


@pytest.fixture
def tables(request, tmp_path):
    task = request.node.callspec.params["task"]
    return tables_of(task, tmp_path)


def tables_of(task, directory):
    return {
        "train": write(table_for(task), directory / "train.arrow"),
        "test": write(table_for(task, 11, seed=1), directory / "test.arrow"),
    }


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """What trains a network when it is first asked for: most tests look at the same ones, and change nothing."""
    kept = {}

    def training(task, architecture, **fields):
        which = (task, architecture, repr(fields))
        if which not in kept:
            directory = tmp_path_factory.mktemp("training")
            result = run(made(task, architecture, **fields), tables_of(task, directory), directory)
            kept[which] = Trained(result, saved(result, directory / "model"))
        return kept[which]

    return training


@dataclass(frozen=True)
class Trained:
    """A run to its end, and where the model is that it made."""

    run: Run
    path: Path


def made(task, architecture, **fields):
    fields = {"hyperparameters": SHORT, **fields}
    return spec_of(task, kind=TASKS[task].kind, architecture=architecture, **fields)


def values_of(table: pa.Table, names) -> list[dict]:
    """The rows as a caller would send them."""
    return [{name: as_json(value) for name, value in row.items()} for row in table.select(list(names)).to_pylist()]


def as_json(value):
    if isinstance(value, dict):
        return base64.b64encode(value["bytes"]).decode()
    return value.isoformat() if hasattr(value, "isoformat") else value


@pytest.mark.parametrize(("task", "architecture"), covering(SUPERVISED))
def test_learns_its_examples_by_heart(task, architecture, tables, tmp_path):
    least_loss, best = LEAST_LOSSES.get(task, 0.01), 0.98 * BEST_SCORES.get(task, 1)
    for epochs in (FEW_PASSES, 150):
        exactly = {"epochs": epochs, "dropout": 0.0, "learning_rate": RATES.get(architecture, 3e-3)}
        spec = made(task, architecture, hyperparameters=exactly, task_config=EXACT.get(task, {}))
        found = run(spec, {"train": tables["train"]}, tmp_path / str(epochs)).metrics["train"]
        if found["loss"] < least_loss and found[TASKS[task].score] > best:
            break
    assert found["loss"] < least_loss
    assert found[TASKS[task].score] > best


@pytest.mark.parametrize(("task", "architecture"), [pair for pair in PAIRS if pair[0] in PRETRAINING])
def test_pretraining_lowers_its_loss(task, architecture, tables, tmp_path):
    before = run(made(task, architecture, hyperparameters={**SHORT, "max_steps": 1}), tables, tmp_path / "a")
    after = run(made(task, architecture, hyperparameters={"epochs": 30, "learning_rate": 3e-3}), tables, tmp_path / "b")
    assert after.metrics["train"]["loss"] < 0.8 * before.metrics["train"]["loss"]


@pytest.mark.parametrize(("task", "architecture"), covering(PAIRS))
def test_the_same_seed_gives_the_same_bits(task, architecture, tables, trainings, tmp_path):
    first = trainings(task, architecture).run
    second, other = (run(made(task, architecture, seed=seed), tables, tmp_path / str(seed)) for seed in (0, 4))
    assert first.recorder.evaluations == second.recorder.evaluations
    assert_same(first.outcome.weights, second.outcome.weights)
    assert first.metrics["train"]["loss"] != other.metrics["train"]["loss"]


@pytest.mark.parametrize(
    "stop", [pytest.param(1, marks=pytest.mark.slow), 4, 5, pytest.param(8, marks=pytest.mark.slow), 12]
)
@pytest.mark.parametrize(("task", "architecture"), covering(PAIRS))
def test_a_stopped_run_resumes_as_if_it_never_had(task, architecture, stop, tables, trainings, tmp_path):
    # 32 training rows and 8 to a batch: 4 steps an epoch. It is asked whether to stop after each step and in each
    # evaluation: 4 is between an epoch's last step and its evaluation, 5 in that, 8 and 12 in the middle of an epoch.
    options = {"dropout": 0.3, "schedule": "one-cycle", "gradient_clip": 1.0}
    fields = {"hyperparameters": {**SHORT, **options}, "split": {"validation": 0.2}}
    spec, whole = made(task, architecture, **fields), trainings(task, architecture, **fields).run
    half = run(spec, tables, tmp_path / "half", Recorder(stop_after=stop))
    assert not half.outcome.finished
    if whole.prepared.resolved.steps_per_epoch == 4:  # not of rows that were put together and cut into blocks
        assert half.outcome.position.step == {1: 1, 4: 4, 5: 4, 8: 7, 12: 10}[stop]
    torch.rand(5)  # whatever happens in between
    rest = run(spec, tables, tmp_path / "rest", resume=checkpoint.read(half.outcome.checkpoint))
    assert rest.outcome.finished
    assert rest.metrics == whole.metrics
    assert_same(rest.outcome.weights, whole.outcome.weights)


@pytest.mark.parametrize("resumed", [2, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("task", "architecture"), covering(PAIRS))
def test_every_checkpoint_stays_as_it_was_written(task, architecture, resumed, tables, tmp_path):
    # The last step is saved twice, before and after the best weights are put in place: whoever still reads the first
    # must not find the second.
    spec = made(task, architecture, hyperparameters=SHORT, split={"validation": 0.2}, checkpointing={"every_steps": 4})
    recorder = Recorder()
    written = []
    recorder.on_checkpoint = lambda path, _: written.append((path, contents(path)))
    whole = run(spec, tables, tmp_path / "whole", recorder)
    assert all(content for _, content in written)
    assert [contents(path) for path, _ in written] == [content for _, content in written]
    positions = [checkpoint.read(path).position for path, _ in written]
    assert positions[-2].step == positions[-1].step == whole.prepared.resolved.total_steps
    assert [position.finished for position in positions[-2:]] == [False, True]
    for number, (path, _) in enumerate(written[-resumed:]):
        rest = run(spec, tables, tmp_path / f"rest-{number}", resume=checkpoint.read(path))
        assert_same(rest.outcome.weights, whole.outcome.weights)


@pytest.mark.parametrize(("task", "architecture"), PAIRS)
def test_saved_and_loaded_it_answers_the_same(task, architecture, tables, trainings):
    trained = trainings(task, architecture)
    design, weights = load(trained.path)
    assert design.to_dict() == trained.run.prepared.design.to_dict()
    network = design.build()
    network.load_state_dict(weights)
    table = open_table(tables["test"])
    once, again = (predicted(design, one, table) for one in (network, trained.run.prepared.network))
    torch.testing.assert_close(once, again, rtol=0, atol=0)


@pytest.mark.parametrize(("task", "architecture"), PAIRS)
def test_the_predictor_answers_what_evaluation_measured(task, architecture, tables, trainings):
    trained = trainings(task, architecture)
    predictor = Predictor(trained.path)
    design, table = predictor.design, open_table(tables["test"])
    inputs = values_of(table, design.modality.column_names(design.inputs))
    served = predictor.predict(inputs)
    assert served.errors == []
    predictions = predicted(design, trained.run.prepared.network, table)
    if not isinstance(design.task, Generative):  # what is written is no measure of what was learned
        folded = predicting(copy.deepcopy(trained.run.prepared.network), "fp32")
        predicts = predicted(design, folded, table)
        assert served.outputs == design.task.answers(predicts, design.targets, predictor.parse(inputs).rows)
        for one, other in zip(flat(predicts), flat(predictions), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    parts = everything(design, table)
    targets = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name.startswith("target")}
    measured = design.task.metrics(predictions, targets, design.targets)
    assert {name: trained.run.metrics["test"][name] for name in measured} == measured


@pytest.mark.parametrize(("task", "architecture"), PAIRS)
def test_a_batch_of_n_is_n_batches_of_one(task, architecture, tables, trainings):
    fields = {"architecture_config": {"batch_normalization": True}} if architecture == "mlp" else {}
    predictor = Predictor(trainings(task, architecture, **fields).path)
    inputs = values_of(open_table(tables["test"]), predictor.design.modality.column_names(predictor.design.inputs))
    together = predictor.predict(inputs).outputs
    apart = [predictor.predict([value]).outputs[0] for value in inputs]
    for one, other in zip(numbers(together), numbers(apart), strict=True):
        assert one == pytest.approx(other, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize(("task", "architecture"), PAIRS)
def test_the_schema_s_example_can_be_answered(task, architecture, trainings):
    predictor = Predictor(trainings(task, architecture).path)
    card = describe(predictor.design)
    served = predictor.predict([card["example"]])
    assert served.errors == []
    assert set(served.outputs[0]) == set(card["output"]["properties"])


@pytest.mark.parametrize(("task", "architecture"), PAIRS)
def test_a_broken_input_is_named_and_its_neighbours_are_answered(task, architecture, trainings):
    predictor = Predictor(trainings(task, architecture).path)
    good = describe(predictor.design)["example"]
    name = predictor.design.modality.column_names(predictor.design.inputs)[0]
    whole = good if isinstance(good, dict) else {}
    served = predictor.predict([good, {**whole, name: {"no": "value"}}, 17, good])
    assert [output is None for output in served.outputs] == [False, True, True, False]
    assert [(type(error), error.index) for error in served.errors] == [(InvalidInput, 1), (InvalidInput, 2)]
    assert name in served.errors[0].message


@pytest.mark.parametrize("split", [{"validation": 0.0}, {"validation": 0.3, "test": 0.3}], ids=["whole", "parts"])
@pytest.mark.parametrize(("task", "architecture"), SUPERVISED)
def test_a_row_without_a_target_is_named(task, architecture, split, tables, tmp_path):
    """By its number in the file, whichever part it belongs to."""
    target = spec_of(task).columns.target_names()[0]
    table = table_for(task)
    values = table.column(target).to_pylist()
    values[4] = None
    broken = table.set_column(table.column_names.index(target), target, [values])
    with pytest.raises(InvalidData, match=f'Row 5, column "{target}"'):
        run(made(task, architecture, split=split), {"train": write(broken, tmp_path / "broken.arrow")}, tmp_path)


@pytest.mark.parametrize(("pretraining", "task", "architecture"), STARTS)
def test_finetuning_starts_from_the_base_model(task, architecture, pretraining, tables, trainings):
    before, base = trainings(pretraining, architecture).run, trainings(pretraining, architecture).path
    pretrained = prepare(made(task, architecture), tables, base=base, device=torch.device("cpu"))
    prefix = pretrained.network.backbone.prefix
    start = {f"{prefix}.{name}": tensor for name, tensor in pretrained.network.backbone.state_dict().items()}
    assert_same(start, {name: tensor for name, tensor in before.outcome.weights.items() if name in start})
    # What was fitted is taken over, for whichever column is read.
    fitted = [prepared.design.inputs.model_dump(exclude={"column"}) for prepared in (pretrained, before.prepared)]
    assert fitted[0] == fitted[1]


@pytest.mark.parametrize(("pretraining", "task", "architecture"), covering(STARTS))
def test_it_learns_from_a_base_model(task, architecture, pretraining, tables, trainings, tmp_path):
    base = trainings(pretraining, architecture).path
    # Numbers are hit more slowly than classes are told apart, and what reads from left to right learns more slowly: in
    # 40 passes it depends on the processor's last bits whether it does.
    passes = (120 if task == "text-regression" else 40) * (4 if architecture in RATES else 1)
    for epochs in sorted({FEW_PASSES, passes}):
        exactly = {"epochs": epochs, "learning_rate": RATES.get(architecture, 3e-3), "dropout": 0.0}
        spec = made(task, architecture, hyperparameters=exactly, task_config=EXACT.get(task, {}))
        score = run(spec, tables, tmp_path / str(epochs), base=base).metrics["train"][TASKS[task].score]
        if score > 0.9 * BEST_SCORES.get(task, 1):
            break
    assert score > 0.9 * BEST_SCORES.get(task, 1)


def predicted(design, network, table):
    network.eval()
    with torch.inference_mode():
        return joined([design.task.predict(network, part, design.targets) for part in everything(design, table)])


def contents(directory):
    """The files of a directory."""
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def everything(design, table):
    """The rows of a table as evaluation sees them."""
    return list(encode_part(design, table, torch.device("cpu")).everything())


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def numbers(answers):
    """Every number of the answers in the order of the names."""
    found = []

    def collect(value):
        if isinstance(value, dict):
            for name in sorted(value):
                collect(value[name])
        elif isinstance(value, list):
            for item in value:
                collect(item)
        elif isinstance(value, float):
            assert math.isfinite(value)
            found.append(value)

    collect(answers)
    return found


def flat(predictions):
    """The tensors of predictions, which may be packed."""
    return [predictions] if isinstance(predictions, torch.Tensor) else list(predictions)
