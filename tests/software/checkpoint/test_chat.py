"""Chat templates, compared with apply_chat_template of transformers."""

import json

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from rf8.checkpoint.chat import ChatTemplate
from rf8.errors import DataError

CHATML = """\
{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}
    {% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}
"""
STRICT = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + message.content.strip() + ' [/INST]' }}
    {%- else %}
        {%- generation %}{{- ' ' + message.content + eos_token }}{%- endgeneration %}
    {%- endif %}
{%- endfor %}
"""
TOOLS = """\
{%- set ns = namespace(n=0) %}
{%- if tools is none and documents is none %}none {% endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.n = ns.n + 1 %}
    {{- ns.n }}{{ message | tojson }}{{ [1, 'é<'] | tojson(indent=2) }}
    {%- if ns.n > 2 %}{% break %}{% endif %}
{%- endfor %}
{{- strftime_now('%Y')[:2] }}{{ dict(a=1)['a'] }}{{ missing_token }}
"""
TEMPLATES = {"chatml": CHATML, "strict": STRICT, "tools": TOOLS}
TALKS = [
    [{"role": "user", "content": " What is 2 < 3? \n"}],
    [{"role": "system", "content": "Say 'é'."}, {"role": "user", "content": "x{{ y }}"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ],
]
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": {"__type": "AddedToken", "content": "<s>", "special": True},
    "eos_token": "</s>",
}


def saved(folder, config, jinja=None):
    tokenizer = Tokenizer(models.BPE(vocab={"<s>": 0, "</s>": 1, "a": 2}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG | config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("talk", TALKS, ids=["question", "system", "three"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_transformers_gives(tmp_path, template, talk):
    files = saved(tmp_path, {"chat_template": TEMPLATES[template]})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = ChatTemplate(files, "m")
    if template == "strict" and talk is TALKS[1]:
        with pytest.raises(DataError, match=r"template of m stops: Roles must alternate"):
            ours.render(talk)
        return
    expected = theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert ours.render(talk) == expected


def test_where_a_template_may_be(tmp_path):
    named = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]
    files = saved(tmp_path, {"chat_template": named})
    assert ChatTemplate(files, "m").render([]) == "one"
    # A file of its own counts more than the config, and that more than the processor's.
    both = files | {"chat_template.jinja": b"file", "chat_template.json": b'{"chat_template": "x"}'}
    assert ChatTemplate(both, "m").render([]) == "file"
    assert ChatTemplate(files | {"chat_template.json": b"{}"}, "m").render([]) == "one"
    processor = {"chat_template.json": b'{"chat_template": "processor"}'}
    assert ChatTemplate(processor, "m").render([]) == "processor"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "m has no chat template: leave --chat out"),
        (3, "chat_template is 3, must be text"),
        ([{"name": "rag", "template": "x"}], "no chat template is named default: rag"),
        ("{% if %}", "the chat template of m is broken"),
        ("{{ messages.x.y }}", "the chat template of m stops"),
        ("{{ messages[0].content + 1 }}", "the chat template of m stops"),
        ("{{ messages.append(1) }}", "the chat template of m stops"),
        ("{{ ''.__class__.__mro__ }}", "the chat template of m stops"),
    ],
)
def test_templates_that_do_not_work(template, words):
    files = {"tokenizer_config.json": json.dumps({"chat_template": template}).encode()}
    with pytest.raises(DataError, match=words):
        ChatTemplate(files, "m").render(TALKS[0])
