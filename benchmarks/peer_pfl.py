"""Apple's pfl on the workload of `benchmarks.simulation`, one local step; run by a Python with pfl and torch, without Fivefold.

Prints client updates a second.
"""
# mypy: ignore-errors

import time

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

USERS, COHORT, ROWS, FEATURES, CLASSES, ROUNDS = 10_000, 100, 20, 784, 10, 20


class Softmax(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(FEATURES, CLASSES)

    def loss(self, x, y, eval=False):
        return torch.nn.functional.cross_entropy(self.layer(x), y)

    @torch.no_grad()
    def metrics(self, x, y):
        return {"loss": Weighted(torch.nn.functional.cross_entropy(self.layer(x), y, reduction="sum").item(), len(y))}


class Silent(TrainingProcessCallback):
    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        return False, Metrics()

    def on_train_begin(self, **_):
        return Metrics()


def main():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((USERS, ROWS, FEATURES), dtype=np.float32))
    y = torch.from_numpy(rng.integers(0, CLASSES, (USERS, ROWS)))
    network = Softmax()
    model = PyTorchModel(
        network, local_optimizer_create=torch.optim.SGD, central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0)
    )
    users = FederatedDataset(
        lambda u: Dataset(raw_data=[x[u], y[u]], user_id=u), get_user_sampler("random", list(range(USERS)))
    )
    parameters = NNAlgorithmParams(
        central_num_iterations=ROUNDS, evaluation_frequency=1000, train_cohort_size=COHORT, val_cohort_size=0
    )
    began = time.perf_counter()
    FederatedAveraging().run(
        algorithm_params=parameters,
        backend=SimulatedBackend(training_data=users, val_data=None, postprocessors=[]),
        model=model,
        model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=0.1, local_batch_size=None),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Silent()],
    )
    print(ROUNDS * COHORT / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
