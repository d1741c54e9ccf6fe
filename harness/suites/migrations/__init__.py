"""The suite `migrations`: each way to a project's schema leads to the same one, through the pooler and directly."""
