"""Device classes: what the federation asks of each kind of machine."""

from dataclasses import asdict
from uuid import UUID

from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from devices.classes import ClassTerms, change_class, create_class, terms_of
from devices.models import DeviceClass, Federation
from frontend.forms import ClassForm, NewClassForm
from frontend.views.access import KEY_READERS, actor_of, for_roles, require_operator
from latticeward.errors import LatticewardError


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles(*KEY_READERS)
def class_list(request: HttpRequest) -> HttpResponse:
    """Every class with its terms; operators add one here."""
    federation = Federation.objects.order_by("created_at").first()
    form = NewClassForm(initial=asdict(ClassTerms(name="")))
    if request.method == "POST":
        require_operator(request)
        form = NewClassForm(request.POST)
        if federation is not None and form.is_valid():
            values = {**form.cleaned_data}
            slug = values.pop("slug")
            try:
                made = create_class(
                    federation=federation, slug=slug, terms=ClassTerms(**values), actor=actor_of(request)
                )
            except LatticewardError as error:
                form.add_error(None, str(problem_of(error)[1]["detail"]))
            else:
                messages.success(request, f"{made.name} is a device class of the federation.")
                return redirect("device-classes")
    context = {
        "classes": DeviceClass.objects.annotate(machines=Count("devices")).order_by("name"),
        "form": form,
        "may_change": federation is not None and Role.OPERATOR in roles_of(request.user),
    }
    return render(request, "frontend/device_classes.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles(Role.OPERATOR)
def device_class(request: HttpRequest, class_id: UUID) -> HttpResponse:
    """One class, to be changed; what was decided under the old terms stays decided."""
    shown = get_object_or_404(DeviceClass, pk=class_id)
    form = ClassForm(initial=asdict(terms_of(shown)))
    if request.method == "POST":
        form = ClassForm(request.POST)
        if form.is_valid():
            try:
                change_class(class_id=shown.id, changes=form.cleaned_data, actor=actor_of(request))
            except LatticewardError as error:
                form.add_error(None, str(problem_of(error)[1]["detail"]))
            else:
                messages.success(request, f"{form.cleaned_data['name']}: saved.")
                return redirect("device-classes")
    context = {"class": shown, "form": form}
    return render(request, "frontend/device_class.html", context, status=422 if form.errors else 200)
