"""The lab's tabs: each computes with cliffs, draws with plotly and knows nothing of marimo; `lab.py` wires them."""
