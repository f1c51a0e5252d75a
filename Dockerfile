# docker build --tag r2ec-bench .      (with CUDA: --build-arg TORCH=cuda; docs/install.md says how to run it)
FROM python:3.11-slim

RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /r2ec-bench

# The packages first: a layer that stays while the code changes. pyproject.toml wants the other names to be there, whatever they hold.
COPY Makefile requirements.txt pyproject.toml README.md LICENSE ./
COPY install install
ARG TORCH=cpu
ARG PIP_EXTRA_INDEX_URL=
RUN mkdir config workflow && touch environment.yml && make setup TORCH=$TORCH && rm -rf /root/.cache

COPY . .
ENV PATH=/r2ec-bench/.venv/bin:$PATH
CMD ["make", "help"]
