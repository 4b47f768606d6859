"""What is learned from: photos and drawn heads as samples; labels of photos for other programs."""
