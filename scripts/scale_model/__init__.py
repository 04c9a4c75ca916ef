"""The model behind docs/scale.md: one box on paper, many boxes on paper, and what was simulated.

`inputs` holds every number that comes from elsewhere, `stored` and `wire` count bytes, `fleet` is paper about brokers,
`herd` and `dedup` are simulations, `tables` prints. Nothing here talks to a gateway or to a broker.
"""
