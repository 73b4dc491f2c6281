"""The adapters for Lightning and for Hugging Face's Trainer, with the real packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinkcheck import InputError
from kinkcheck.monitor import Monitor

SEEN = "kinkcheck.monitor.standing.smooth"
"""What needs no lift; without it every measurement casts the program in place."""


def images(count: int) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    x = torch.randint(3, (count, 1, 12, 12), generator=draws).float()
    return list(zip(x, torch.randint(3, (count,), generator=draws), strict=True))


@pytest.mark.parametrize("package", ["lightning", "transformers"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = f"kinkcheck.monitor.{package}"
    monkeypatch.delitem(sys.modules, adapter, raising=False)
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf'{package} is needed .*pip install "kinkcheck\[{package}\]"'
    ):
        __import__(adapter)


class TestLightning:
    @pytest.fixture(autouse=True)
    def _quiet(self) -> None:
        pytest.importorskip("lightning", exc_type=ImportError)

    def train(self, folder: Path, monitored: bool, **options: Any) -> tuple[Any, Any, Any]:
        """The module, the monitor and the logger after a training."""
        from lightning import pytorch as lightning
        from lightning.pytorch.loggers import CSVLogger

        from kinkcheck.monitor.lightning import LightningMonitor

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = nn.Sequential(
                    nn.Conv2d(1, 4, 3),
                    nn.BatchNorm2d(4),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                    nn.Dropout(0.3),
                    nn.Flatten(),
                    nn.Linear(100, 3),
                )

            def forward(self, x: Tensor) -> Tensor:
                return self.net(x)

            def training_step(self, batch: Any, number: int) -> Tensor:
                return F.cross_entropy(self(batch[0]), batch[1])

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), lr=0.05)

        lightning.seed_everything(0, verbose=False)
        module = Module()
        monitor = Monitor(module, F.cross_entropy, every=3, standing=True)
        logger = CSVLogger(folder)
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=2,
            logger=logger,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[LightningMonitor(monitor)] if monitored else [],
            log_every_n_steps=1,
            **options,
        )
        loader = torch.utils.data.DataLoader(images(20), batch_size=4, shuffle=True)
        trainer.fit(module, loader)
        return module, monitor, logger

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_a_monitored_training_is_the_same(
        self, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SEEN, lambda *_: None)
        module, monitor, logger = self.train(tmp_path / "a", True, precision=precision)
        plain, _, _ = self.train(tmp_path / "b", False, precision=precision)
        torch.testing.assert_close(module.state_dict(), plain.state_dict(), rtol=0, atol=0)
        assert [record.step for record in monitor.records] == [0, 3, 6, 9]
        assert [ties.name for ties in monitor.records[0].ties] == ["net.2.relu", "net.3.max_pool2d"]
        logged = (Path(logger.log_dir) / "metrics.csv").read_text()
        assert "ties/net.3.max_pool2d" in logged
        assert "standing/derivative" in logged
        assert monitor.standings.keys() <= {"derivative", "limit"}

    def test_any_loss_and_a_checkpoint(self) -> None:
        from lightning.pytorch import Trainer

        from kinkcheck.monitor.lightning import LightningMonitor

        model = nn.Linear(2, 1)
        trainer = Trainer(logger=False, accelerator="cpu")
        monitor = Monitor(model, step=lambda model, batch: model(batch["x"]).sum(), every=2)
        callback = LightningMonitor(monitor)
        for number in range(3):
            callback.on_train_batch_start(trainer, model, {"x": torch.ones(1, 2)}, number)
        assert [record.step for record in callback.monitor.records] == [0, 2]
        other = LightningMonitor(Monitor(model))
        other.load_state_dict(callback.state_dict())
        assert other.monitor.steps == 3


class TestTrainer:
    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        pytest.importorskip("transformers", exc_type=ImportError)
        pytest.importorskip("accelerate", exc_type=ImportError)

    def train(self, folder: Path, monitored: bool, **options: Any) -> tuple[Any, Any]:
        """The model and the monitor after a training."""
        from transformers import (
            ResNetConfig,
            ResNetForImageClassification,
            Trainer,
            TrainingArguments,
        )

        from kinkcheck.monitor.transformers import TrainerMonitor

        torch.manual_seed(0)
        config = ResNetConfig(
            num_channels=1,
            embedding_size=8,
            hidden_sizes=[8],
            depths=[1],
            layer_type="basic",
            num_labels=3,
        )
        model = ResNetForImageClassification(config)
        monitor = Monitor(model, every=3, standing=True)
        Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=str(folder),
                report_to="none",
                use_cpu=True,
                max_steps=7,
                per_device_train_batch_size=4,
                save_strategy="no",
                disable_tqdm=True,
                **options,
            ),
            train_dataset=[{"pixel_values": x, "labels": y} for x, y in images(20)],
            eval_dataset=[{"pixel_values": x, "labels": y} for x, y in images(4)],
            callbacks=[TrainerMonitor(monitor)] if monitored else [],
        ).train()
        return model, monitor

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"bf16": True},
            {"gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 1},
        ],
    )
    def test_a_monitored_training_is_the_same(
        self, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SEEN, lambda *_: None)
        model, monitor = self.train(tmp_path / "a", True, **options)
        plain, _ = self.train(tmp_path / "b", False, **options)
        torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)
        assert [record.step for record in monitor.records] == [0, 3, 6]
        operations = {ties.operation for ties in monitor.records[0].ties}
        assert operations == {"relu", "max_pool2d"}
        assert not model._forward_pre_hooks
        assert monitor.standings.keys() <= {"derivative", "limit"}

    def test_a_model_without_a_loss(self) -> None:
        from kinkcheck.monitor.transformers import TrainerMonitor

        callback = TrainerMonitor(Monitor(nn.Linear(1, 1)))
        state = type("State", (), {"global_step": 0, "is_world_process_zero": True})()
        callback.on_train_begin(None, state, None)
        callback.monitor.model(torch.ones(1, 1))
        with pytest.raises(InputError, match="model: returns no loss; its batches need labels"):
            callback.on_pre_optimizer_step(None, state, None)
