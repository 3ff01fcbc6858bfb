"""Third-party weights, read as arrays by the names of our layers: `{layer: [arrays]}`."""
