import numpy as np
import pytest
import torch

from lead_core.gradients import GradientTrace, RoundGradientMeter, flat, plan_sketch, sketch
from lead_core.utility import GradientSummary, cosine


def test_a_sketch_keeps_dot_products_within_its_documented_error():
    """Standard deviation of a dot product at most sqrt((|a|^2 |b|^2 + <a,b>^2) / m), over plans."""
    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.normal(size=20_000).astype(np.float32))
    b = torch.from_numpy((0.5 * a.numpy() + rng.normal(size=20_000)).astype(np.float32))
    true = float(torch.dot(a.double(), b.double()))
    bound = np.sqrt((float(a.norm() * b.norm()) ** 2 + true**2) / 1024)
    errors = []
    for seed in range(100):
        plan = plan_sketch(20_000, 1024, seed=seed, device="cpu")
        errors.append(float(sketch(plan, a) @ sketch(plan, b)) - true)
    assert np.std(errors) <= 1.2 * bound  # 100 plans know a deviation to about 7 %
    assert abs(np.mean(errors)) <= 4 * bound / np.sqrt(100)


def test_the_cosine_of_sketches_of_the_default_size_is_right_to_four_hundredths():
    rng = np.random.default_rng(1)
    a = torch.from_numpy(rng.normal(size=50_000).astype(np.float32))
    b = torch.from_numpy((a.numpy() + rng.normal(size=50_000)).astype(np.float32))
    plan = plan_sketch(50_000, 16384, seed=3, device="cpu")
    kept = [GradientSummary(float(v.norm() ** 2), sketch(plan, v)) for v in (a, b)]
    true = float(torch.dot(a, b) / a.norm() / b.norm())
    assert cosine(*kept) == pytest.approx(true, abs=0.044)  # four standard deviations


def test_the_same_seed_gives_the_same_sketch():
    vector = torch.arange(100.0)
    first = sketch(plan_sketch(100, 64, seed=5, device="cpu"), vector)
    np.testing.assert_array_equal(first, sketch(plan_sketch(100, 64, seed=5, device="cpu"), vector))
    assert (first != sketch(plan_sketch(100, 64, seed=6, device="cpu"), vector)).any()


def descend(loss, parameter, steps, learning_rate, max_snapshots=16):
    """Take SGD steps on `loss`, watched by a meter; return the meter's result and the losses."""
    meter = RoundGradientMeter([parameter], steps, max_snapshots)
    before = []
    for _ in range(steps):
        value = loss(parameter)
        before.append(float(value.detach()))
        parameter.grad = None
        value.backward()
        meter.before_update()
        with torch.no_grad():
            parameter -= learning_rate * parameter.grad
    plan = plan_sketch(parameter.numel(), 64, seed=0, device="cpu")
    return meter.close(plan), np.array(before), float(loss(parameter).detach())


def test_the_displacement_is_exact_on_a_linear_loss():
    slope = torch.tensor([1.0, -2.0, 0.5])
    parameter = torch.nn.Parameter(torch.tensor([0.3, 0.1, -0.7]))
    gradient, before, after = descend(lambda p: slope @ p, parameter, 5, 0.01)
    np.testing.assert_allclose(gradient.displacement, after - before, atol=1e-6)
    assert gradient.summary.sq_norm == pytest.approx(float(slope @ slope), abs=1e-6)


def quadratic_error(learning_rate: float) -> tuple[float, float]:
    """Error of the displacement over one SGD step on a quadratic, and 1/2 D^T H D."""
    hessian = torch.diag(torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)).float()
    start = torch.tensor([1.0, -0.5, 2.0])
    parameter = torch.nn.Parameter(start.clone())
    gradient, before, after = descend(lambda p: 0.5 * p @ hessian @ p, parameter, 1, learning_rate)
    step = parameter.detach() - start
    return (after - before[0]) - gradient.displacement[0], float(0.5 * step @ hessian @ step)


def test_on_a_quadratic_the_error_is_the_second_order_term_and_falls_fourfold():
    error, second_order = quadratic_error(0.02)
    assert error == pytest.approx(second_order, abs=1e-6)
    halved, _ = quadratic_error(0.01)
    assert error / halved == pytest.approx(4.0, rel=1e-2)


def test_with_more_steps_than_snapshots_the_displacement_is_interpolated():
    slope = torch.tensor([1.0])
    parameter = torch.nn.Parameter(torch.tensor([0.0]))
    # equal steps: the interpolation is exact, whatever the number of copies
    for snapshots in (1, 2, 5):
        gradient, _, _ = descend(lambda p: slope @ p, parameter, 5, 1.0, max_snapshots=snapshots)
        np.testing.assert_allclose(gradient.displacement, [-5.0, -4.0, -3.0, -2.0, -1.0])


def test_the_mean_gradient_is_over_the_rounds_steps():
    parameter = torch.nn.Parameter(torch.zeros(2))
    meter = RoundGradientMeter([parameter], 2, 16)
    for values in ([1.0, 0.0], [0.0, 3.0]):
        parameter.grad = torch.tensor(values)
        meter.before_update()
    gradient = meter.close(plan_sketch(2, 64, seed=0, device="cpu"))
    assert gradient.summary.sq_norm == pytest.approx(0.25 + 2.25)


@pytest.mark.parametrize("max_snapshots", [1, 2, 3, 16])
def test_a_meter_that_goes_on_from_a_trace_ends_with_the_same_bits(max_snapshots):
    def run(resume: bool):
        parameter = torch.nn.Parameter(torch.tensor([0.3, -1.1, 0.7]))
        meter = RoundGradientMeter([parameter], 5, max_snapshots)
        for step in range(5):
            parameter.grad = torch.tensor([0.1, -0.7, 0.3]) * (step + 1) / 3
            if resume:
                meter = RoundGradientMeter([parameter], 5, max_snapshots, meter.trace)
            meter.before_update()
            with torch.no_grad():
                parameter -= 0.1 * parameter.grad
        return meter.close(plan_sketch(3, 64, seed=0, device="cpu"))

    whole, resumed = run(False), run(True)
    assert resumed.summary.sq_norm == whole.summary.sq_norm
    np.testing.assert_array_equal(resumed.summary.sketch, whole.summary.sketch)
    np.testing.assert_array_equal(resumed.displacement, whole.displacement)


def test_a_trace_stays_as_it_was_while_its_meter_goes_on():
    parameter = torch.nn.Parameter(torch.ones(2))
    meter = RoundGradientMeter([parameter], 3, 16)
    traces: list[GradientTrace] = []
    for _ in range(3):
        parameter.grad = torch.ones(2)
        meter.before_update()
        traces.append(meter.trace)
        with torch.no_grad():
            parameter.add_(1.0)
    assert [trace.total.tolist() for trace in traces] == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert [len(trace.snapshots) for trace in traces] == [1, 2, 3]
    assert traces[0].snapshots[0].tolist() == [1.0, 1.0]


def test_a_parameter_without_gradient_counts_as_zero():
    used, unused = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(2))
    used.grad = torch.tensor([2.0])
    meter = RoundGradientMeter([used, unused], 1, 1)
    meter.before_update()
    assert meter.close(plan_sketch(3, 64, seed=0, device="cpu")).summary.sq_norm == 4.0


def test_flat_joins_tensors_in_order():
    assert flat([torch.ones(1, 2), torch.zeros(1)]).tolist() == [1.0, 1.0, 0.0]


def test_a_round_without_a_step_has_no_gradient():
    with pytest.raises(ValueError, match="without a step"):
        RoundGradientMeter([], 1, 1).close(plan_sketch(1, 64, seed=0, device="cpu"))
