"""The chart: rendered, validated, and held against the settings and the server that it deploys."""
