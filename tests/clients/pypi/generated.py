"""Uses an SDK that openapi-python-client generates from openapi.json. Only the base URL and the key differ from direct use."""

import os

from cal_client import AuthenticatedClient
from cal_client.api.bookings import create_booking, get_booking, get_bookings
from cal_client.api.me import get_me
from cal_client.models import NewBooking, NewBookingAttendee

from report import check, expect

KEYED, KEYLESS, KEY = (os.environ[name] for name in ("KEYED", "KEYLESS", "KEY"))


def understood(answer, operation):
    expect(answer is not None, "no answer that the document describes")
    expect(answer.data["operation"] == operation, f"{answer.data['operation']}, not {operation}")
    expect(answer.data["credential"] == "api-key", answer.data["credential"])
    return answer.data


with AuthenticatedClient(base_url=KEYED, token=KEY, raise_on_unexpected_status=True) as client:
    with check("generated client: profile"):
        understood(get_me.sync(client=client), "GET /v2/me")
    with check("generated client: bookings with query parameters"):
        data = understood(
            get_bookings.sync(client=client, cal_api_version="2024-08-13", status="upcoming", take=5),
            "GET /v2/bookings",
        )
        expect(data["query"] == "status=upcoming&take=5" and data["version"] == "2024-08-13", str(data))
    with check("generated client: a booking by its uid"):
        data = understood(
            get_booking.sync("a b", client=client, cal_api_version="2024-08-13"), "GET /v2/bookings/{bookingUid}"
        )
        expect(data["parameters"] == {"bookingUid": "a b"}, str(data["parameters"]))
    with check("generated client: a new booking"):
        attendee = NewBookingAttendee(name="Zoë", email="zoe@example.com", time_zone="Europe/Vienna")
        booking = NewBooking(start="2030-01-01T10:00:00Z", event_type_id=1, attendee=attendee)
        answer = create_booking.sync(client=client, body=booking, cal_api_version="2024-08-13")
        understood(answer, "POST /v2/bookings")

with AuthenticatedClient(base_url=KEYLESS, token="placeholder", raise_on_unexpected_status=True) as client:
    with check("generated client: keyless, with the placeholder that it insists on"):
        understood(get_me.sync(client=client), "GET /v2/me")
