"""The commands `mlwf`, `mlwf_export_model` and `mlwf_create_image`. Nothing is imported here: each starts with what it needs itself."""
