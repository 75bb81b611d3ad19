// Posts the ticket at once; whoever has no JavaScript presses the button.
document.getElementById("sign-in").submit();
