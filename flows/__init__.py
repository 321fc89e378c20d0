"""When things run: stage commands, the Prefect flow, schedules and the `lead` command."""
