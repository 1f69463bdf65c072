FROM {{ base }}
USER root
ENV DEBIAN_FRONTEND=noninteractive \
    SHELL=/bin/bash \
    USER={{ user }} \
    NB_USER={{ user }} \
    NB_UID={{ uid }} \
    HOME=/home/{{ user }} \
    APP_BASE=/srv \
    VIRTUAL_ENV={{ venv }} \
    NB_PYTHON_PREFIX={{ venv }} \
    KERNEL_PYTHON_PREFIX={{ venv }} \
    REPO_DIR=/home/{{ user }} \
    UV_PROJECT_ENVIRONMENT={{ venv }} \
    UV_PYTHON_INSTALL_DIR=/srv/python \
    UV_LINK_MODE=copy \
    UV_NO_PROGRESS=1 \
    UV_SYSTEM_CERTS=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/home/{{ user }}/.local/bin:{{ venv }}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --chmod=0755 uv python3-login repo2docker-entrypoint /usr/local/bin/
COPY jupyter.txt uv.toml /srv/
# Ubuntu's images have a user 1000 of their own; what a login shell forgets of the PATH is given back; the base image's
# own settings of uv stay.
RUN set -e; \
    if getent passwd {{ uid }} > /dev/null && [ "$(id -un {{ uid }})" != {{ user }} ]; then userdel "$(id -un {{ uid }})"; fi; \
    getent group {{ uid }} > /dev/null || groupadd --gid {{ uid }} {{ user }}; \
    id {{ user }} > /dev/null 2>&1 || useradd --create-home --no-log-init --shell /bin/bash --uid {{ uid }} --gid {{ uid }} {{ user }}; \
    install -d -o {{ uid }} -g {{ uid }} {{ venv }} /srv/python; \
    echo 'export PATH="$HOME/.local/bin:${REPO_DIR:-$HOME}/.local/bin:{{ venv }}/bin:$PATH"' > /etc/profile.d/argosy.sh; \
    install -d /etc/uv; cat /srv/uv.toml >> /etc/uv/uv.toml
USER {{ user }}
RUN set -e; \
    uv venv --no-config --quiet --python "{{ python }}" {{ venv }} || { echo {{ no_python }}; exit 1; }; \
    uv pip install --no-config --no-cache --compile-bytecode --quiet --no-deps --python {{ venv }}/bin/python -r /srv/jupyter.txt; \
    echo "{{ mark }}$({{ venv }}/bin/python -c 'import platform; print(platform.python_version())')"
WORKDIR /home/{{ user }}
EXPOSE 8888
ENTRYPOINT ["/usr/local/bin/repo2docker-entrypoint"]
CMD ["jupyter", "lab", "--ip", "0.0.0.0"]
