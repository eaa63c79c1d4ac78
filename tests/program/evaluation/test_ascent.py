"""Paths that climb side by side are those that each would climb alone, with the curvature of the surface."""

import pytest
import torch

from vipack.program.evaluation import ascent
from vipack.program.evaluation.ascent import climb, inverse_hessian_times

DIM = 6
SCALES = torch.logspace(-3, 3, DIM, dtype=torch.float64)


def surface(kind):
    """log p and its gradient of a normal with scales from 1e-3 to 1e3, or of a curved ridge."""

    def value(x):
        if kind == "normal":
            return -0.5 * ((x - 1.0) / SCALES).square().sum(-1)
        return -0.5 * (x[..., 0].square() / 4 + 25 * (x[..., 1:] - x[..., :1].square()).square().sum(-1))

    def gradients_of(x):
        x = x.clone().requires_grad_()
        values = value(x)
        (gradients,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), gradients

    return gradients_of


def starts(number):
    return torch.randn(number, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", ["normal", "ridge"])
@pytest.mark.parametrize("memory", [4, 30])
def test_side_by_side_is_one_by_one(kind, memory):
    of, points = surface(kind), starts(5)
    together = climb(of, points, memory=memory, num_steps=12)
    for r, path in enumerate(together):
        (alone,) = climb(of, points[r : r + 1], memory=memory, num_steps=12)
        assert path.num_pairs == alone.num_pairs
        torch.testing.assert_close(torch.stack(path.points), torch.stack(alone.points), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("memory", [4, 30])
def test_directions_are_those_of_each_paths_own_estimate(memory, monkeypatch):
    seen = []
    original = ascent._Curvature.directions

    def recorded(self, rows, gradients, fresh):
        answer = original(self, rows, gradients, fresh)
        seen.append((rows, gradients.clone(), fresh, answer))
        return answer

    monkeypatch.setattr(ascent._Curvature, "directions", recorded)
    paths = climb(surface("ridge"), starts(4), memory=memory, num_steps=20)
    compared = 0
    for rows, gradients, fresh, answer in seen:
        for i, r in enumerate(rows.tolist()):
            at = next(k for k, g in enumerate(paths[r].gradients) if torch.equal(g, gradients[i]))
            if not fresh[i]:
                own = inverse_hessian_times(paths[r], at, gradients[i], memory)
                torch.testing.assert_close(answer[i], own, rtol=1e-7, atol=1e-10)
                compared += 1
    assert compared > 40


def test_the_top_of_a_normal_is_reached_whatever_its_scales():
    for path in climb(surface("normal"), starts(3), num_steps=200):
        assert ((path.points[-1] - 1.0) / SCALES).abs().max() < 0.01


def test_a_start_without_a_density_stays_where_it_is():
    def gradients_of(x):
        values, gradients = surface("normal")(x)
        lost = x[:, 0] > 5
        return torch.where(lost, -torch.inf, values), torch.where(lost[:, None], 0.0, gradients)

    points = starts(2)
    points[0, 0] = 6.0
    lost, other = climb(gradients_of, points)
    assert len(lost.points) == 1
    assert len(other.points) > 3
