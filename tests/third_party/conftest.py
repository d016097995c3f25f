"""The distribution here is installed by test_third_party_plugin.py, and its own tests run where it is installed."""

collect_ignore_glob = ["*"]
