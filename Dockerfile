# HighlightSense for machines without a GPU:
#     docker build -t highlight-sense .
#     docker run --rm --user "$(id -u)" -v "$PWD:/work" highlight-sense detect stream.mkv -o out
FROM python:3.13-slim

COPY setup.py settings.ini README.md LICENSE MANIFEST.in constraints.txt /source/
COPY highlight_sense /source/highlight_sense

# One layer, so that what is removed takes no space: tests, programs and headers of other packages are 300 MB.
RUN python -m pip install --no-cache-dir --no-compile \
        --extra-index-url https://download.pytorch.org/whl/cpu -c /source/constraints.txt /source \
    && cd /usr/local/lib/python3.13/site-packages \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && find torch/bin ! -type d ! -name torch_shm_manager -delete \
    && rm -r torch/include /source/*

# any user may write there
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["highlight-sense"]
CMD ["--help"]
