"""Where rows and backbones come from, read without torch: data folders, the lab, local models."""
