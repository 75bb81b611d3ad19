"""Train scikit-learn's ElasticNet on wine data and log it to an MLflow tracking server.

Plain mlflow: the server and the login come from MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
"""

import argparse
import io
import os
import urllib.request
from pathlib import Path

# Run inside a checkout that has a uv.lock (this one has), MLflow would record that project's packages as the model's.
os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.datasets import load_wine
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/winequality-red.csv"
MODEL_NAME = "ElasticnetWineModel"
SEED = 40


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("alpha", metavar="ALPHA", type=float, nargs="?", default=0.5, help="weight of the penalty (default: 0.5)")
    parser.add_argument("l1_ratio", metavar="L1_RATIO", type=float, nargs="?", default=0.5, help="share of L1 in it, 0 to 1 (default: 0.5)")
    parser.add_argument("--data", metavar="PATH_OR_URL", help="semicolon-separated wine data (default: UCI's red wine)")
    return parser.parse_args()


def read(source: str) -> bytes:
    """The content of a file or of a web address, which is waited for 20 s."""
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=20) as answer:  # noqa: S310  # http and https only
            return bytes(answer.read())
    return Path(source).read_bytes()


def read_table(source: str | None) -> pd.DataFrame:
    """What is at the source, or at UCI's address if there is none. Raises OSError or ValueError where that is no table, or not UCI's."""
    table = pd.read_csv(io.BytesIO(read(source or UCI)), sep=";")
    if not source and "quality" not in table:
        # A network's sign-in page or its proxy answers in UCI's place, and says that all is well.
        raise ValueError("what came is not the data, perhaps a page of this network's sign-in or proxy")
    return table


def wine(source: str | None) -> tuple[pd.DataFrame, "pd.Series[float]", str]:
    """Features, target and the name of the data. Without a source UCI's file, or scikit-learn's own wine data where it is out of reach."""
    try:
        table = read_table(source)
    except (OSError, ValueError) as error:
        if source:
            raise SystemExit(f"{source} could not be read ({error}): check the path or address, or leave --data away") from error
        print(f"UCI's wine data could not be downloaded ({error}): using the wine data that comes with scikit-learn.")
        bundled = load_wine(as_frame=True)
        return bundled.data, bundled.target.astype(float), "scikit-learn wine"
    if "quality" not in table:
        raise SystemExit(f"{source} has no column `quality`: give a file in the layout of UCI's winequality-red.csv, with semicolons")
    return table.drop(columns="quality").astype(float), table["quality"].astype(float), source or UCI


def main() -> None:
    given = arguments()
    features, target, data_name = wine(given.data)
    train_x, test_x, train_y, test_y = train_test_split(features, target, random_state=SEED)
    model = ElasticNet(alpha=given.alpha, l1_ratio=given.l1_ratio, random_state=SEED)

    with mlflow.start_run() as run:
        model.fit(train_x, train_y)
        predicted = model.predict(test_x)
        metrics = {
            "rmse": float(root_mean_squared_error(test_y, predicted)),
            "mae": float(mean_absolute_error(test_y, predicted)),
            "r2": float(r2_score(test_y, predicted)),
        }
        mlflow.log_params({"alpha": given.alpha, "l1_ratio": given.l1_ratio})
        mlflow.set_tag("data", data_name)
        mlflow.log_metrics(metrics)
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(train_x, np.asarray(predicted)),
            input_example=train_x.head(5),
            registered_model_name=MODEL_NAME,
        )
    print(f"ElasticNet(alpha={given.alpha}, l1_ratio={given.l1_ratio}): " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    print(f"Run {run.info.run_id}")


if __name__ == "__main__":
    main()
