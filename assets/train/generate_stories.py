#!/usr/bin/env python3
"""Procedural generator of short, connected children's stories.

Every story is a plot (a Python function) played by a cast of characters whose names,
pronouns, kinds, homes and belongings are tracked from the first sentence to the last.
The sentences are templates:

    {a|b|c}        one of the alternatives (they nest; an empty one is allowed)
    <H>            a reference to character H (its name, or "the little fox")
    <H.he>         a pronoun or another attribute of H (he him his self s a kind go paws ...)
    <obj>          a story variable, itself a template
    [H:text]       H says text; the tag's wording and position vary
    [H/ask:text]   the same, in a tone (see TONES)

All text is written for this project. The output is deterministic for a seed.

    python3 generate_stories.py --out synthetic.txt --megabytes 60 --seed 1 --workers 8
    python3 generate_stories.py --show 5
"""
import argparse
import multiprocessing
import random
import re
import sys

# ---------------------------------------------------------------- template engine

_CACHE = {}


def parse(text):
    node = _CACHE.get(text)
    if node is None:
        node, end = _parse(text, 0, "")
        if end != len(text):
            raise ValueError("unbalanced template: " + text)
        _CACHE[text] = node
    return node


def _parse(text, i, stops):
    out, buf, n = [], [], len(text)
    while i < n:
        c = text[i]
        if c in stops:
            break
        if c == "{":
            alts = []
            while True:
                node, i = _parse(text, i + 1, "|}")
                alts.append(node)
                if i >= n:
                    raise ValueError("unclosed { in " + text)
                if text[i] == "}":
                    break
            item = ("alt", alts)
        elif c == "<":
            j = text.index(">", i)
            item, i = ("ref", text[i + 1:j]), j
        elif c == "[":
            j = text.index(":", i)
            who = text[i + 1:j]
            node, i = _parse(text, j + 1, "]")
            if i >= n:
                raise ValueError("unclosed [ in " + text)
            item = ("say", who, node)
        else:
            buf.append(c)
            i += 1
            continue
        if buf:
            out.append("".join(buf))
            buf = []
        out.append(item)
        i += 1
    if buf:
        out.append("".join(buf))
    return out, i


# tone: (verbs, ways to say it, little actions that can stand in for a tag)
TONES = {
    "say": (["said"], ["", "", "", "softly"], []),
    "ask": (["asked"], ["", "", ""], ["<*> {tilted|turned} <*.his> head.", "<*> looked up."]),
    "answer": (["said", "answered", "replied"], ["", "", ""], ["<*> {thought|paused} for a moment.", "<*> nodded."]),
    "happy": (["said", "said", "cheered", "laughed"], ["", "happily", "with a {big|bright|wide} smile", "with a grin"],
              ["<*> {smiled|laughed|grinned}.", "<*> jumped up and down.", "<*> clapped <*.his> <*.paws>.",
               "<*.s> eyes {shone|sparkled|lit up}."]),
    "sad": (["said"], ["sadly", "in a {small|quiet|sad} voice", "with tears in <*.his> eyes"],
            ["<*> looked down at the ground.", "<*> sniffed.", "<*> wiped away a tear.", "<*> {sighed|hung <*.his> head}."]),
    "cry": (["cried", "called", "shouted"], ["", "", "loudly"], []),
    "kind": (["said"], ["kindly", "gently", "softly", "in a warm voice", "with a kind smile"],
             ["<*> {smiled|smiled kindly}.", "<*> {nodded slowly|looked at <*.him> kindly}.".replace("<*.him>", "the little one"), "<*> smiled warmly."]),
    "scared": (["whispered", "said"], ["in a shaky voice", "quietly", "in a tiny voice"],
               ["<*> {shivered|trembled}.", "<*> took a step back.", "<*> swallowed hard."]),
    "angry": (["said", "shouted"], ["angrily", "crossly", "in a loud voice"], ["<*> frowned.", "<*> stamped <*.his> foot."]),
    "whisper": (["whispered"], ["", "", "softly"], []),
    "think": (["thought"], ["", "to <*.self>"], []),
    "sorry": (["said"], ["quietly", "in a small voice", "with tears in <*.his> eyes", "softly"],
              ["<*> looked at the floor.", "<*> took a deep breath.", "<*> hung <*.his> head."]),
    "grump": (["grumbled", "growled", "muttered"], ["", ""], ["<*> frowned.", "<*> crossed <*.his> arms."]),
    "wise": (["said"], ["wisely", "slowly", "in a {deep|calm|soft} voice"],
             ["<*> blinked slowly.", "<*> thought for a long time.", "<*> nodded."]),
}

_CAP = re.compile(r'(^|[.!?]["\']?\s+)(["\']?)([a-z])')
_CAPQ = re.compile(r'([,:] ")([a-z])')
_AN = re.compile(r'\b([Aa])n? (?=([A-Za-z]+))')
_AN_NOT = re.compile(r'(?i)(uni|use|usu|one\b|once|eu)')


def _article(m):
    w = m.group(2)
    vowel = (w[0] in "aeiouAEIOU" and not _AN_NOT.match(w)) or w.lower() in ("hour", "honest")
    return m.group(1) + ("n " if vowel else " ")


def polish(text):
    text = re.sub(r"  +", " ", text).strip()
    text = re.sub(r" ([,.!?])", r"\1", text)
    text = _CAP.sub(lambda m: m.group(1) + m.group(2) + m.group(3).upper(), text)
    text = _CAPQ.sub(lambda m: m.group(1) + m.group(2).upper(), text)
    text = _AN.sub(_article, text)
    return text.replace("\x01", "")


PRON = {
    "m": dict(he="he", him="him", his="his", hers="his", self="himself", boy="boy", son="son", man="man", sib="brother"),
    "f": dict(he="she", him="her", his="her", hers="hers", self="herself", boy="girl", son="daughter", man="woman", sib="sister"),
    "n": dict(he="it", him="it", his="its", hers="its", self="itself", boy="one", son="child", man="one", sib="friend"),
}


class Char:
    def __init__(self, kind, gender, name=None, adj="little", human=False, fixed=None, **attr):
        self.kind, self.gender, self.name, self.adj, self.human = kind, gender, name, adj, human
        self.fixed = fixed            # a fixed reference such as "his mom"
        self.attr = attr

    def ref(self, s):
        if self.fixed:
            return self.fixed
        if self.name and (self.human or s.r.random() < 0.82 or s.same_kind(self)):
            return self.name
        if self.human and not self.name:
            return "the " + self.kind
        if self.adj and s.r.random() < 0.35:
            return "the %s %s" % (self.adj, self.kind)
        return "the " + self.kind

    def get(self, s, a):
        p = PRON[self.gender]
        if a in p:
            return p[a]
        if a == "n":
            return self.name or self.fixed or "the " + self.kind
        if a == "s":
            t = self.ref(s)
            return t + "'s"
        if a == "a":
            base = "a %s %s" % (self.adj, self.kind) if self.adj else "a " + self.kind
            return base + ("{ named | called | named }" + self.name if self.name else "")
        if a == "ak":
            return "a %s %s" % (self.adj, self.kind) if self.adj else "a " + self.kind
        if a == "kind":
            return self.kind
        if a == "adj":
            return self.adj
        return self.attr[a]


class Story:
    def __init__(self, rng):
        self.r, self.v, self.c = rng, {}, {}
        self.paras, self.cur, self.last = [], [], None
        self.v["day"] = DAY
        self.v["air"] = AIR

    # -- randomness
    def pick(self, *a):
        return self.r.choice(a[0] if len(a) == 1 else a)

    def some(self, seq, n):
        return self.r.sample(list(seq), n)

    def chance(self, p):
        return self.r.random() < p

    # -- cast
    def put(self, key, char):
        self.c[key] = char
        return char

    def same_kind(self, char):
        return any(c is not char and c.kind == char.kind for c in self.c.values())

    # -- expansion
    def x(self, text):
        return self._nodes(parse(text))

    def _nodes(self, nodes):
        out = []
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif node[0] == "alt":
                out.append(self._nodes(self.r.choice(node[1])))
            elif node[0] == "ref":
                out.append(self._ref(node[1]))
            else:
                out.append(self._say(node[1], self._nodes(node[2])))
        return "".join(out)

    def _ref(self, key):
        if "." in key:
            k, a = key.split(".", 1)
            if k in self.c:
                val = self.c[k].get(self, a)
                if a in ("s", "a", "n"):
                    self.last = k
                return self.x(val) if "{" in val or "<" in val else val
        if key in self.c:
            self.last = key
            val = self.c[key].ref(self)
            return val
        val = self.v[key]
        if isinstance(val, (list, tuple)):
            val = self.r.choice(val)
        return self.x(val)

    def _say(self, who, line):
        k, _, tone = who.partition("/")
        verbs, ways, acts = TONES[tone or "say"]
        line = line.strip()
        line = line[0].upper() + line[1:]
        pronoun_ok = self.last == k
        sub = lambda t: t.replace("<*", "<" + k)
        way = self.x(sub(self.pick(ways)))
        way = " " + way if way else ""
        verb = self.pick(verbs)
        if acts and self.chance(0.16):
            return self.x(sub(self.pick(acts))) + ' "' + line + '"'
        use_pron = pronoun_ok and self.chance(0.4)
        name = self.c[k].get(self, "he") if use_pron else self._ref(k)
        self.last = k
        if self.chance(0.36):
            return name + " " + verb + way + ', "' + line + '"'
        quoted = line[:-1] + "," if line.endswith(".") else line
        if not use_pron and self.chance(0.5) and self.c[k].fixed is None:
            return '"%s" \x01%s %s%s' % (quoted, verb, name, way)
        return '"%s" \x01%s %s%s' % (quoted, name, verb, way)

    # -- writing
    def __call__(self, *alts):
        """Append one of the given texts to the current paragraph."""
        text = self.x(self.pick(alts)).strip()
        if not text:
            return
        if text[-1] not in '.!?"':
            text += "."
        self.cur.append(text)

    def maybe(self, p, *alts):
        if self.chance(p):
            self(*alts)

    def p(self, *alts):
        """Start a new paragraph."""
        if self.cur:
            self.paras.append(polish(" ".join(self.cur)))
            self.cur = []
        self.last = None
        if alts:
            self(*alts)

    def text(self):
        self.p()
        return "\n".join(self.paras)


# ---------------------------------------------------------------- vocabulary

GIRLS = ("Lily Mia Anna Lucy Sara Sarah Jane Sue Daisy Molly Jill Lila Sally Mary Amy Emma Grace Jenny Emily Bella Polly "
         "Rosie Lisa Lola Ella Sophie Lulu Luna Kate Alice Ruby Tilly Nora Zoe Ivy Clara Maya Hana Nina Olive Penny June "
         "Hazel Poppy Stella Eva Leah Ada Iris Fay Tara Mila Elsa Wendy Holly").split()
BOYS = ("Ben Tom Timmy Jack Tim Sam Max John Bob Joe Billy Andy Jake Jimmy Jim James Dave Alex Danny Henry Pete Bobby Frank "
        "Peter Leo George Mark Ted Fred Charlie Mike Toby Oliver Matt Noah Finn Hugo Oscar Eli Theo Luke Adam Will Ravi Omar "
        "Kai Nico Otto Felix Simon Ned Gus Jonah Milo Arlo").split()
PET_M = ("Pip Benny Sammy Rex Spike Bobo Rusty Bruno Fuzzy Buddy Oscar Hopper Nibbles Tucker Barney Chester Rolo Momo Biscuit "
         "Gilbert Fergus Teddy Bumble Pepper Ziggy Scout Patch Waffle Moss Acorn Jasper Basil Finn Otis").split()
PET_F = ("Daisy Bella Fluffy Mimi Lulu Dotty Rosie Honey Clover Hazel Poppy Willow Pebble Maple Ruby Olive Ginger Coco Luna "
         "Fern Tilly Bluebell Pearl Misty Nutmeg Holly Juniper Berry Sunny Penny Minnie Flora Marigold Pippa").split()

#        kind        home                                                                       move                      paws     size
ANIMALS = {
    "fox": ("in a {cozy|warm|little} den {under an old oak tree|at the edge of the forest|beside a mossy rock}", "{ran|trotted|hurried}", "paws"),
    "rabbit": ("in a {cozy|warm|little} burrow {under the hill|in the meadow|near the carrot field}", "{hopped|ran|hurried}", "paws"),
    "bear": ("in a {big|warm|quiet} cave {in the forest|on the hill|near the river}", "{walked|ran|hurried}", "paws"),
    "mouse": ("in a {tiny|cozy} hole {in the wall of an old house|under a big barn|under the roots of a tree}", "{ran|scurried|hurried}", "paws"),
    "squirrel": ("in {a hollow tree|the top of a tall oak tree|a nest of leaves high in a tree}", "{ran|jumped|hurried}", "paws"),
    "hedgehog": ("under {a pile of dry leaves|a big bush|the roots of an old tree}", "{walked|hurried|waddled}", "paws"),
    "cat": ("in {a small house with a red roof|a sunny house by the sea|a house at the end of the road}", "{ran|walked|hurried}", "paws"),
    "dog": ("in {a small house with a big yard|a house on a hill|a house near the park}", "{ran|trotted|hurried}", "paws"),
    "puppy": ("in {a small house with a big yard|a house on a hill|a house near the park}", "{ran|trotted|bounced}", "paws"),
    "kitten": ("in {a small house with a red roof|a warm barn|a house at the end of the road}", "{ran|jumped|hurried}", "paws"),
    "duck": ("{beside|near} {a blue pond|a quiet lake|a little river}", "{waddled|hurried|ran}", "wings"),
    "bird": ("in a {small|cozy|round} nest {in a tall tree|at the top of an apple tree|near the roof of a barn}", "{flew|hurried|flew}", "wings"),
    "owl": ("in {a hollow tree|an old barn|a tall pine tree}", "{flew|flew quietly|hurried}", "wings"),
    "pig": ("on {a big farm|a farm near a village|a small farm}", "{ran|trotted|hurried}", "feet"),
    "lamb": ("on {a green hill|a big farm|a small farm}", "{ran|skipped|trotted}", "feet"),
    "pony": ("on {a green hill|a big farm|a farm near the sea}", "{ran|galloped|trotted}", "feet"),
    "elephant": ("near {a wide river|a big green jungle|a watering hole}", "{walked|ran|marched}", "feet"),
    "monkey": ("in {a tall tree in the jungle|a green jungle|the trees by the river}", "{ran|swung|jumped}", "hands"),
    "lion": ("in {a sunny land with tall grass|a cave near the plain}", "{ran|walked|hurried}", "paws"),
    "deer": ("in {a quiet forest|a green valley|the woods by a stream}", "{ran|walked|leaped}", "feet"),
    "frog": ("{beside|near} {a green pond|a muddy pond|a little stream}", "{hopped|jumped|hurried}", "feet"),
    "turtle": ("{beside|near} {a quiet pond|a blue lake|a slow river}", "{walked|walked slowly|went}", "feet"),
    "raccoon": ("in {a hollow log|an old tree|a den by the stream}", "{ran|hurried|walked}", "paws"),
    "beaver": ("in {a house made of sticks|a cozy lodge on the river}", "{walked|hurried|ran}", "paws"),
    "badger": ("in a {warm|deep|cozy} den under {the hill|the trees}", "{walked|hurried|ran}", "paws"),
    "penguin": ("on {a land of ice and snow|a snowy shore}", "{waddled|slid|hurried}", "wings"),
    "goat": ("on {a rocky mountain|a small farm}", "{ran|jumped|trotted}", "feet"),
    "panda": ("in {a quiet bamboo forest|the green mountains}", "{walked|rolled|hurried}", "paws"),
    "koala": ("in {a tall gum tree|a quiet forest}", "{climbed|hurried|went}", "paws"),
    "mole": ("under {the garden|a grassy hill}", "{hurried|walked|scurried}", "paws"),
}
FANTASY = {
    "dragon": ("in {a cave on a mountain|an old castle|a valley full of flowers}", "{flew|walked|hurried}", "feet"),
    "robot": ("in {a small workshop|a big city|a house full of tools}", "{rolled|walked|hurried}", "hands"),
    "fairy": ("inside {a pink flower|a hollow tree|a tiny house made of leaves}", "{flew|fluttered|hurried}", "hands"),
    "elf": ("in {a tiny house in the woods|a house shaped like a mushroom}", "{ran|walked|skipped}", "hands"),
    "giant": ("in {a huge house on a hill|a valley far away}", "{walked|stomped|hurried}", "hands"),
    "princess": ("in {a tall castle|a big castle on a hill|a castle by the sea}", "{ran|walked|hurried}", "hands"),
    "prince": ("in {a tall castle|a big castle on a hill|a castle by the sea}", "{ran|walked|rode}", "hands"),
    "knight": ("in {a stone castle|a village near a castle}", "{ran|rode|walked}", "hands"),
    "wizard": ("in {a crooked tower|a tall tower in the woods}", "{walked|hurried|ran}", "hands"),
    "pirate": ("on {a wooden ship|an island in the sea}", "{ran|sailed|marched}", "hands"),
    "unicorn": ("in {a magic forest|a land of rainbows}", "{ran|galloped|trotted}", "feet"),
}
KID_HOME = ["in {a small house|a little house|a big house} {near the park|by the sea|at the edge of a village|on a quiet street|next to a farm|near the woods}",
            "in {a small town|a little village|a big city}"]
KID_GO = "{ran|walked|hurried|skipped}"
ADJ = "little little little small young kind curious happy brave gentle clever cheerful playful shy tiny friendly".split()
COLORS = "red blue green yellow orange purple pink white golden silver brown".split()

DAY = ["one {sunny|bright|warm|fine|cool|windy|lovely|quiet|beautiful} {day|morning|afternoon}", "one day", "one day", "one morning",
       "one {spring|summer|autumn} {day|morning|afternoon}", "early one morning", "one Saturday{| morning}"]
AIR = ["The sun was {bright|warm|shining} and the {birds were singing|sky was blue}.", "The sky was {blue|clear} and {a soft wind was blowing|there were no clouds}.",
       "The {grass|air} was {fresh|cool} and {sweet|soft}.", "It was a {perfect|lovely|good} day to {play|be outside}.",
       "{White|Fluffy} clouds {moved|floated} slowly across the sky.", "{Bees|Butterflies} were flying from flower to flower.",
       "The leaves {danced|whispered} in the wind.", "The air smelled like {flowers|fresh bread|grass after the rain}.",
       "Everything was {quiet|calm} and {still|peaceful}.", ""]
FEEL_GOOD = ["<H> felt {very happy|warm inside|proud|so happy|full of joy|glad}.", "<H> {smiled|smiled a big smile|smiled from ear to ear}.",
             "<H.s> heart felt {light|warm|full}.", "<H> was {so|very} {happy|proud|glad}."]
FEEL_BAD = ["<H> felt {very sad|sad and alone|like crying|bad|a little sad}.", "<H> {began|started} to cry.", "A {big|little} tear {ran|rolled} down <H.his> {face|cheek}.",
            "<H.s> heart felt heavy.", "<H> did not know what to do."]
END = ["And they {all |}lived happily ever after.", "The end.", "And <H> was {happy|very happy}.", "It was the best day ever.",
       "That night, <H> {fell asleep|went to sleep} with a {smile|big smile} on <H.his> face.", "<H> never forgot that day.", "", "", "", ""]

HELPERS = [("owl", "wise old", "wise"), ("squirrel", "busy", "answer"), ("turtle", "slow old", "wise"), ("bee", "busy", "answer"),
           ("frog", "green", "answer"), ("crow", "clever", "answer"), ("cow", "gentle", "kind"), ("duck", "friendly", "answer"),
           ("snail", "tiny", "wise"), ("goat", "gray", "answer"), ("rabbit", "quick", "answer"), ("mole", "sleepy", "answer"),
           ("robin", "small", "answer"), ("horse", "tall", "kind"), ("hedgehog", "shy", "kind"), ("cat", "lazy", "answer"), ("goose", "noisy", "answer"),
           ("ant", "tiny", "answer"), ("deer", "quiet", "kind"), ("butterfly", "yellow", "answer"), ("beaver", "busy", "answer")]


def make_kid(s, gender=None, avoid=()):
    g = gender or s.pick("m", "f")
    name = s.pick([n for n in (BOYS if g == "m" else GIRLS) if n not in avoid])
    adj = s.pick("little", "little", "little", "young", "small", "kind", "")
    return Char("boy" if g == "m" else "girl", g, name, adj, True, home=s.pick(KID_HOME), go=KID_GO, paws="hands")


def make_animal(s, kind=None, named=None, avoid=(), avoid_kind=()):
    kind = kind or s.pick([k for k in ANIMALS if k not in avoid_kind])
    g = s.pick("m", "f")
    name = s.pick([n for n in (PET_M if g == "m" else PET_F) if n not in avoid])
    if named is None:
        named = s.chance(0.8)
    home, go, paws = ANIMALS[kind]
    return Char(kind, g, name if named else None, s.pick(ADJ), False, home=home, go=go, paws=paws)


def make_fantasy(s, avoid=()):
    kind = s.pick(list(FANTASY))
    g = {"princess": "f", "prince": "m"}.get(kind) or s.pick("m", "f")
    pool = (PET_M if g == "m" else PET_F) if kind in ("dragon", "robot", "unicorn", "fairy", "elf") else (BOYS if g == "m" else GIRLS)
    home, go, paws = FANTASY[kind]
    return Char(kind, g, s.pick([n for n in pool if n not in avoid]) if s.chance(0.85) else None, s.pick(ADJ), False, home=home, go=go, paws=paws)


def hero(s, kids=0.45, animals=0.42):
    x = s.r.random()
    h = make_kid(s) if x < kids else make_animal(s) if x < kids + animals else make_fantasy(s)
    s.put("H", h)
    return h


def friend(s, key="F", kids=0.5, like=None):
    """A second character, of another name and kind than those already there."""
    names = [c.name for c in s.c.values()]
    kinds = [c.kind for c in s.c.values()]
    like = like or s.c.get("H")
    if like is not None and like.human:
        f = make_kid(s, avoid=names) if s.chance(0.75) else make_animal(s, s.pick("dog", "cat", "puppy", "kitten", "rabbit"), True, avoid=names)
    else:
        f = make_animal(s, None, True, avoid=names, avoid_kind=kinds)
    return s.put(key, f)


def parent(s, key="P", child="H"):
    h = s.c[child]
    g = s.pick("m", "f", "f")
    if h.human or h.kind in ("princess", "prince", "elf", "fairy"):
        word = s.pick(("mom", "mom", "mother", "grandma", "mommy") if g == "f" else ("dad", "dad", "father", "grandpa", "daddy"))
        if h.kind in ("princess", "prince"):
            word = "mother" if g == "f" else "father"
    else:
        word = s.pick("mother", "mom", "grandma") if g == "f" else s.pick("father", "dad", "grandpa")
    call = {"mother": "Mom", "father": "Dad"}.get(word, word.capitalize())
    return s.put(key, Char(word, g, None, "", True, fixed=PRON[h.gender]["his"] + " " + word, call=call, paws="hands", go="walked"))


def helper(s, key):
    kinds = [c.kind for c in s.c.values()]
    kind, adj, tone = s.pick([h for h in HELPERS if h[0] not in kinds])
    c = Char(kind, s.pick("m", "f"), None, adj, False, tone=tone, go="went", paws="feet", home="near by")
    s.v["tone_" + key] = tone
    return s.put(key, c)


def opening(s, *traits):
    """Introduce H; each trait is a template for what H is or likes, with H as its subject."""
    h = s.c["H"]
    s.v["trait"] = s.pick(traits) if traits else "loved to play outside"
    s.v["home"] = h.attr["home"]
    if h.name:
        s("Once upon a time, there was <H.a>. <H.he> lived <home>. <H> <trait>.",
          "Once upon a time, there was <H.a>. <H> <trait>.",
          "Once upon a time, there was <H.a>. <H> <trait>.",
          "Once upon a time, there was <H.ak> who <trait>. <H.his> name was <H.n>.",
          "Once upon a time, there was <H.ak> who lived <home>. <H.his> name was <H.n>, and <H.he> <trait>.",
          "Once upon a time, <home>, there lived <H.a>. <H.he> <trait>.",
          "Once there was <H.a> who <trait>. <H> lived <home>.",
          "There once was <H.a>. <H.he> lived <home> and <trait>.",
          "Long ago, {in a land far away|far, far away}, there lived <H.a>. <H> <trait>." if not h.human else "Once, there was <H.a> who lived <home>. <H> <trait>.",
          "<H.n> was <H.ak> who lived <home>. <H.he> <trait>.",
          "<H.n> was <H.ak>. <H.he> <trait>.",
          ("<H.n> <trait>. <H.he> was <H.ak> who lived <home>." if h.human else "<H.n> the <H.kind> <trait>. <H.he> lived <home>."),
          "In {a quiet place|a place not far from here|a small and happy place}, there lived <H.a>. <H.he> <trait>.")
    else:
        s("Once upon a time, there was <H.ak> who lived <home>. The <H.kind> <trait>.",
          "Once upon a time, there was <H.ak> who <trait>. <H.he> lived <home>.",
          "Once there was <H.ak> who <trait>.",
          "Once upon a time, <home>, there lived <H.ak>. The <H.kind> <trait>.",
          "There was once <H.ak>. <H.he> lived <home> and <trait>.",
          "Long ago, <H.ak> lived <home>. The <H.kind> <trait>.")


def closing(s, *morals):
    s.maybe(0.93, *morals)
    s(*END)


# ---------------------------------------------------------------- things

LOVED = [("ball", "bounce"), ("teddy bear", "hug"), ("kite", "fly"), ("scarf", "wear"), ("hat", "wear"), ("toy boat", "sail"), ("drum", "play"),
         ("toy train", "push"), ("picture book", "read"), ("blanket", "hold"), ("bell", "ring"), ("whistle", "blow"), ("toy car", "push"),
         ("necklace", "wear"), ("music box", "play"), ("bucket", "carry"), ("lantern", "carry"), ("flute", "play"), ("doll", "hug"), ("ribbon", "wear"),
         ("marble", "roll"), ("balloon", "hold"), ("cup", "use"), ("crown", "wear"), ("button", "hold"), ("coin", "hold"), ("toy robot", "play with"),
         ("umbrella", "carry"), ("feather", "hold"), ("stone", "hold")]
FOODS = ["apple pie", "honey cake", "carrot soup", "berry jam", "banana bread", "chocolate cake", "pumpkin soup", "cherry pie", "cookies", "pancakes",
         "strawberry cake", "bread", "corn soup", "muffins", "apple cake"]
FRUITS = ["apples", "berries", "pears", "cherries", "plums", "nuts", "carrots", "strawberries", "oranges", "blueberries", "grapes", "peaches"]
HIDE = [("under {a pile of leaves|some dry leaves}", "there were many leaves on the ground"), ("behind {the old barn|a big rock|the garden wall}", "something bright was there"),
        ("in the branches of {a tall tree|an apple tree}", "something moved in the wind"), ("under {the bridge|the old wooden bridge}", "the water was low"),
        ("in {a bush full of berries|a thick green bush}", "the leaves were shaking"), ("inside a hollow log", "it was dark and dusty inside"),
        ("beside {the pond|the stream}", "the grass was tall and wet"), ("in {a bird's nest|an empty nest}", "a few soft feathers were falling")]
