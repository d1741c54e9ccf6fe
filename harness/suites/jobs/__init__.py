"""The suite `jobs`: job engines behind each pooler, judged by the effects of their jobs."""
