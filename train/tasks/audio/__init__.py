"""Parts of recipes of sound: their task, resynthesis of files, pictures of spectrograms, pruning."""
