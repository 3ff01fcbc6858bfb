"""Statistics of converted data sets, and how well default boxes cover their objects."""
