"""Text from a fine-tuned model: python generate_text_lora.py MODEL_DIR"""

import sys

import mlflow
import pandas as pd

if len(sys.argv) != 2:
    raise SystemExit("Usage: python generate_text_lora.py MODEL_DIR")

loaded_model = mlflow.pyfunc.load_model(sys.argv[1])
# One text for each prompt, which it begins with.
print(
    "\n".join(
        loaded_model.predict(
            pd.DataFrame({"prompt": ["What is Large language Models?"]}),
            params={"temperature": 0.6, "max_tokens": 128},
        )
    )
)
