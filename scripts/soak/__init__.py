"""The soak test's driver: a gateway with real brokers around it, hours of small misfortunes, and an account at the end.

`__main__` tells the story. `gateway`, `brokers`, `gate` and `clients` are the parts, each as processes that `processes`
starts and ends; `misfortunes` says what happens to them and when; `samples` watches the gateway meanwhile. `account`
holds what arrived against what was acknowledged, `growth` fits lines through the samples, and `verdict` judges both;
`report` and `chart` write it down. `probe` and `subscriber` are programs of their own, for the Python with the
libraries that they need; everything else needs the standard library alone.
"""
