"""Other people's weights -> our model; one file per source."""
