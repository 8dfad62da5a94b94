"""Random changes of training images, drawn by us and applied by kornia on the device."""
