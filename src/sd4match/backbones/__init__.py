"""Photo -> latents -> feature map."""
