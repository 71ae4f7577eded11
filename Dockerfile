# CPU: docker build -t dap . && docker run --rm -v "$PWD:/work" dap denoise in.wav out.wav
FROM python:3.12-slim
COPY pyproject.toml README.md LICENSE /dap/
COPY dapcli /dap/dapcli
# The compiler is for pesq alone.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && pip install --no-cache-dir '/dap[pesq]' --extra-index-url https://download.pytorch.org/whl/cpu \
    && apt-get purge -y --auto-remove gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /work
ENTRYPOINT ["dap"]
