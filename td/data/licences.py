"""Licences of the data sets, as published by their authors."""

_CIFAR = "No licence stated by its authors (Krizhevsky 2009), who ask to be cited."

LICENCES = {
    "digits": "CC BY 4.0: Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), UCI Repository.",
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "mnist": "CC BY-SA 3.0 (LeCun, Cortes and Burges).",
    "fashion_mnist": "MIT (Zalando SE).",
    "imagenet2012": "Terms of access of image-net.org: research and education, not commercial.",
    "numbers": "Apache-2.0: made by td itself.",
    "wmt14_translate/de-en": "No common licence: each corpus (Europarl, Common Crawl, News Commentary) has its own.",
}
