"""What `lead bench` measures: one function per file and measurement, which returns a `Result`."""
