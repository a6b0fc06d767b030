"""How redundant the attention of each layer is: from weights and from a run."""

import json

from small_runs import command
from warm_space import SPACE


def test_layers_are_ranked_from_weights_and_from_a_run(spec, tmp_path):
    file = tmp_path / "warm.yaml"
    file.write_text(SPACE)
    done = command("rank-layers", str(file), f"--init={spec}", "--images=64", "--format=json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["split"], len(found["layers"])) == (64, "train", 2)
    for row in found["layers"]:
        assert row["dispersion_nats"] > 0
        assert 1 <= row["effective_rank"] <= row["tokens"] == 17
    run = tmp_path / "run"
    trained = command("train", str(file), "--run", str(run), "--epochs=1", "--set=train.batch_size=256")
    assert trained.code == 0, trained.stderr
    ranked = command("rank-layers", str(run), "--images=64", "--format=json")
    assert ranked.code == 0, ranked.stderr
    assert len(json.loads(ranked.stdout)["layers"]) == 2


def test_ranking_a_space_without_weights_is_misuse(tmp_path):
    file = tmp_path / "warm.yaml"
    file.write_text(SPACE)
    done = command("rank-layers", str(file))
    assert done.code == 2
    assert "--init" in done.stderr
