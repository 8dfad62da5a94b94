# fruitgan in a container, from the wheel that `python -m build` left in dist/.
#   CPU:   docker build -t fruitgan .
#   CUDA:  docker build -t fruitgan:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .   then: docker run --gpus all ...
# Use: docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" fruitgan translate photo.jpg
FROM python:3.13-slim

# PyTorch's wheels for CPUs are a fifteenth of the size of those on PyPI, which bring CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY dist/*.whl /tmp/dist/
# The wheel says which versions it takes.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision \
    && pip install --no-cache-dir /tmp/dist/*.whl \
    && rm -r /tmp/dist \
    && useradd --uid 1000 --create-home fruitgan \
    && mkdir /work /cache && chmod 1777 /work /cache

# Any user id may write here, also one that -u gives and that has no home.
ENV FRUITGAN_CACHE=/cache MPLCONFIGDIR=/cache/matplotlib NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /work
ENTRYPOINT ["fruitgan"]
CMD ["--help"]
