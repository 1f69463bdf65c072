FROM {{ image }}
{% if repo_dir %}
USER root
RUN install -d -o {{ uid }} -g {{ uid }} "{{ repo_dir }}"
USER ${NB_USER}
ENV REPO_DIR="{{ repo_dir }}" PATH={{ repo_dir }}/.local/bin:${PATH}
WORKDIR {{ repo_dir }}
{% endif %}
{% if files %}
COPY --chown={{ uid }}:{{ uid }}{% for file in files %} src/{{ file }}{% endfor %} ${REPO_DIR}/{{ files[0].rpartition('/')[0] }}{{ '/' if '/' in files[0] else '' }}
{% endif %}
{% for user, script in before %}
{% if user != '${NB_USER}' %}
USER {{ user }}
{% endif %}
RUN {{ script.strip() }}
{% if user != '${NB_USER}' %}
USER ${NB_USER}
{% endif %}
{% endfor %}
COPY --chown={{ uid }}:{{ uid }} src/ ${REPO_DIR}/
{% for user, script in after %}
RUN {{ script.strip() }}
{% endfor %}
{% for script in post_build %}
RUN chmod +x {{ script }} && ./{{ script }}
{% endfor %}
{% if start %}
RUN chmod +x "{{ start }}"
ENV R2D_ENTRYPOINT="{{ start }}"
{% endif %}
LABEL{% for name, value in labels.items() %} {{ name }}="{{ value }}"{% endfor %}

{% if appendix %}
{{ appendix }}
{% endif %}
