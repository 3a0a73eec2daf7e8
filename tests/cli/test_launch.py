"""Devices and processes that a command is given: flags, and what launchers say in the environment."""

import os

import jax
import pytest

from hebbjax.cli import launch, main, train

LAUNCHED = {'MASTER_ADDR': 'one', 'MASTER_PORT': '7000', 'RANK': '1', 'WORLD_SIZE': '2'}


@pytest.fixture
def joined(monkeypatch):
    """What jax is told of the other processes; nobody is there."""
    told = {}
    for name in [name for name in os.environ if name.startswith(('JAX_', 'SLURM_', 'OMPI_', *launch.TORCHRUN))]:
        if name != 'JAX_PLATFORMS':
            monkeypatch.delenv(name)
    monkeypatch.setattr(jax.distributed, 'initialize', lambda **how: told.update(how))
    return told


@pytest.mark.parametrize('env, wanted', [
    (LAUNCHED, {'coordinator_address': 'one:7000', 'num_processes': 2, 'process_id': 1}),
    (LAUNCHED | {'TORCHELASTIC_RUN_ID': 'none', 'LOCAL_WORLD_SIZE': '2', 'LOCAL_RANK': '1'},
     {'coordinator_address': 'one:7001', 'num_processes': 2, 'process_id': 1, 'local_device_ids': 1}),
    (LAUNCHED | {'JAX_NUM_PROCESSES': '3', 'JAX_PROCESS_ID': '2'}, {'num_processes': 3, 'process_id': 2}),
    ({}, {}),  # jax itself knows SLURM and Open MPI
])  # fmt: skip
def test_a_launchers_environment_is_honoured(env, wanted, joined, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    launch.start(launch.OnDevices())
    assert not joined
    launch.start(launch.OnDevices(distributed=True))
    assert joined == wanted | {'heartbeat_timeout_seconds': 30}


@pytest.mark.parametrize('env', [LAUNCHED | {'RANK': 'first'}, {'JAX_NUM_PROCESSES': '2'}])
def test_an_environment_of_no_sense_is_refused(env, joined, monkeypatch, capsys):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main.main(['train', 'dense', '--distributed']) == 2
    said = capsys.readouterr().err
    assert said.startswith('hebbjax train: error: --distributed finds no other processes') and said.count('\n') == 1


def test_devices_are_those_there_are(capsys):
    assert launch.OnDevices().mesh() is None
    assert launch.OnDevices(devices=8).mesh().size == 8
    assert main.main(['train', 'dense', '--devices', '9']) == 2
    assert '--devices 9 is more than the 8 there are here; use fewer.' in capsys.readouterr().err


def test_a_run_goes_on_on_another_number_of_devices(tmp_path, few_digits, capsys):
    run = tmp_path / 'run'
    how = ['--features', '8', '--epochs', '2', '--callbacks', 'checkpoint', '--monitor-every', '0', '--batch', '48']
    assert main.main(['train', 'dense', *how, '--run', str(run), '--devices', '2']) == 0
    settings, _ = train.read_run(run, None)
    assert settings.devices == 2
    config = (run / 'config.json').read_text()
    (run / 'config.json').write_text(config.replace('"epochs": 2', '"epochs": 3'))
    assert main.main(['train', '--resume', str(run), '--devices', '4']) == 0
    assert '3 of 3 epochs' in capsys.readouterr().out
    assert main.main(['train', '--resume', str(run), '--devices', '5']) == 2
    assert 'a batch of 48 does not divide over 5 devices; use 45 or 50.' in capsys.readouterr().err
