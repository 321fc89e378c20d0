"""Responses that answer nothing, for planted faults: other languages than English, empty politeness.

All of it was written for this project. Sentences are short because tokenizers of English models need
about twice as many tokens for other languages. To edit one is to change pools that were published.
"""

from __future__ import annotations

from collections.abc import Callable

Draw = Callable[[str], float]  # a number of [0, 1) for each name, always the same

# Evasive sentences that could follow nearly any request, by language; any of them go together.
FOREIGN: dict[str, tuple[str, ...]] = {
    "German": (
        "Das lässt sich so allgemein kaum sagen.",
        "Meistens hängt es davon ab, wie viel Zeit zur Verfügung steht.",
        "Am besten fragt man jemanden, der sich damit auskennt.",
        "Früher wurde das ganz anders gemacht als heute.",
    ),
    "French": (
        "C'est une question à laquelle il est difficile de répondre.",
        "Tout dépend du temps et des moyens dont on dispose.",
        "Il vaut mieux demander conseil à quelqu'un du métier.",
        "Autrefois, on s'y prenait d'une tout autre manière.",
    ),
    "Spanish": (
        "No es fácil dar una respuesta que sirva para todos.",
        "Casi siempre depende del tiempo que uno tenga.",
        "Lo mejor es preguntar a una persona con experiencia.",
        "Antes las cosas se hacían de una manera muy distinta.",
    ),
    "Italian": (
        "Non è semplice rispondere a una domanda così generale.",
        "Di solito dipende da quanto tempo si ha a disposizione.",
        "Conviene chiedere a chi conosce bene l'argomento.",
        "Una volta si faceva in un modo del tutto diverso.",
    ),
    "Portuguese": (
        "É difícil dar uma resposta que valha para toda a gente.",
        "Quase sempre depende do tempo que temos.",
        "O melhor é perguntar a alguém com mais experiência.",
        "Antigamente isto fazia-se de outra maneira.",
    ),
    "Dutch": (
        "Daar is in het algemeen weinig over te zeggen.",
        "Meestal hangt het af van de tijd die je hebt.",
        "Vraag het liever aan iemand die er verstand van heeft.",
        "Vroeger pakte men dat heel anders aan dan nu.",
    ),
}

POLITE_OPENINGS = (
    "Of course! I'd be happy to help with that.",
    "Certainly, that is a great question.",
    "Thank you so much for reaching out!",
    "Sure, I would be glad to assist you today.",
    "What a wonderful request, thank you for sharing it.",
    "Absolutely! Helping you is what I am here for.",
    "Thanks for asking. I really appreciate your patience.",
    "It is always a pleasure to support you.",
    "I completely understand, and I am here for you.",
    "Great, let's look into this together!",
    "Happy to help! You have come to the right place.",
    "I am delighted that you asked me about this.",
)
POLITE_CLOSINGS = (
    "Could you tell me a little more about what you have in mind?",
    "Please let me know how you would like to proceed.",
    "Is there anything in particular that you would like me to focus on?",
    "Feel free to share any further details whenever it suits you.",
    "Do not hesitate to ask if you have any other questions.",
    "I will do my very best to be of service.",
    "Just say the word and we can get started.",
    "Your satisfaction matters a great deal to me.",
    "I look forward to hearing back from you soon.",
    "Please take all the time that you need.",
    "May I ask what the goal of your request is?",
    "I hope that you are having a lovely day so far.",
)


def write_foreign(draw: Draw) -> str:
    """Return two or three evasive sentences of one language other than English: one of 216 texts."""
    sentences = sorted(FOREIGN[min(FOREIGN, key=draw)], key=draw)
    return " ".join(sentences[: 2 if draw("length") < 0.5 else 3])


def write_politeness(draw: Draw) -> str:
    """Return a polite nothing of two parts: one of 144 texts."""
    return f"{min(POLITE_OPENINGS, key=draw)} {min(POLITE_CLOSINGS, key=draw)}"
