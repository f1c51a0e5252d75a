"""What a training needs beside its objective: schedule, processes and sharded weights."""
