"""Images with captions: a grammar of scenes of digits and their canvases, emoji, and folders of pictures with texts."""
