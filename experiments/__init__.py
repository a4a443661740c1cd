"""One script per question, by kind: figures, training, hypotheses, benchmarks. `runner` finds and runs them."""
